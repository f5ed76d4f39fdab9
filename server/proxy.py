"""nginx with the kit's configuration: the only door of a federation to the outside."""

import os
import shutil
import signal
import ssl
import subprocess
import time
from dataclasses import dataclass

import httpx

from fed_fsad.daemon import Daemon
from fed_fsad.errors import FederationError
from server.kit import ServerKit
from server.superlink import check_free

START_S = 20.0
POLL_S = 0.2
FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Where distributions put nginx, which is not on every user's PATH."""


@dataclass(frozen=True)
class Proxy:
    """The nginx of one kit."""

    kit: ServerKit

    @property
    def daemon(self) -> Daemon:
        """The background process."""
        return Daemon("nginx", self.kit.var)

    def check(self) -> None:
        """Raise FederationError when nginx is not installed, or refuses the kit's configuration."""
        (self.kit.var / "temp").mkdir(mode=0o755, parents=True, exist_ok=True)
        tested = subprocess.run([*self._command(), "-t"], capture_output=True, text=True, check=False)
        if tested.returncode:
            said = [line for line in tested.stderr.splitlines() if "[emerg]" in line] or tested.stderr.splitlines()
            raise FederationError(f"nginx refuses {self.kit.folder / 'nginx.conf'}: {said[0]}; mend that line")

    def start(self) -> None:
        """Start it and wait until it lets a question through to the SuperLink. Raises FederationError."""
        self.check()
        check_free("", self.kit.address.port, "port, in server.yaml and nginx.conf")
        self.daemon.start([*self._command(), "-g", "daemon off;"], os.environ)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.daemon.pid() is not None:
            if self.healthy():
                return
            time.sleep(POLL_S)
        said, superlink = self.daemon.tail(1), self.kit.superlink
        self.daemon.stop()
        if not superlink.healthy():
            log = superlink.daemon
            raise FederationError(f"the SuperLink behind nginx does not answer; {log.log} ends with: {log.tail()}")
        raise FederationError(
            f"nginx does not answer on port {self.kit.address.port} as {self.kit.address.address} ({said}); "
            "server.yaml and nginx.conf must name the same ports"
        )

    def healthy(self) -> bool:
        """Whether it answers for the SuperLink, with a certificate of the kit's authority for the kit's address."""
        trust = ssl.create_default_context(cafile=self.kit.folder / "ca.crt")
        address, port = self.kit.address.address, self.kit.address.port
        extensions = {"sni_hostname": address}
        try:
            request = httpx.Request("GET", f"https://127.0.0.1:{port}/health", extensions=extensions)
            with httpx.Client(verify=trust, timeout=5.0) as client:
                return client.send(request).is_success
        except httpx.HTTPError:
            return False

    def reload(self) -> None:
        """Let it read its configuration and certificates anew; connections go on."""
        if (pid := self.daemon.pid()) is not None:
            os.kill(pid, signal.SIGHUP)

    def _command(self) -> list[str]:
        search = os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS])
        nginx = shutil.which("nginx", path=search)
        if nginx is None:
            raise FederationError(
                "nginx is not installed; install it with `apt install nginx-light` or `dnf install nginx`"
            )
        return [nginx, "-p", f"{self.kit.folder}/", "-c", str(self.kit.folder / "nginx.conf")]
