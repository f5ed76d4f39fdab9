"""The server as running programs: SuperLink and proxy started, watched and stopped, sites registered and revoked."""

import json
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fed_fsad.durable import replace
from fed_fsad.errors import FederationError
from fed_fsad.provision.keys import fingerprint
from server.current import abandon
from server.kit import ServerKit
from server.proxy import Proxy
from server.superlink import CONNECTION

AT_ONCE = 4
WATCH_S = 2.0
LAST = 5
REGISTERED = "registered.json"


def start(kit: ServerKit) -> None:
    """Start what does not run yet, and register and unregister keys. Raises UserError; then nothing new runs."""
    kit.check()
    proxy, superlink = Proxy(kit), kit.superlink
    proxy.check()
    mine = superlink.daemon.pid() is None
    if mine:
        superlink.start(kit.options)
    try:
        if mine:
            abandon(kit)
        sync(kit)
        if proxy.daemon.pid() is None:
            proxy.start()
    except BaseException:
        if mine:
            superlink.daemon.stop()
        raise


def stop(kit: ServerKit) -> list[str]:
    """Close the door, then end the SuperLink; the names of what was running. A run under way can be resumed."""
    return [daemon.name for daemon in (Proxy(kit).daemon, kit.superlink.daemon) if daemon.stop()]


def watch(kit: ServerKit, ready: Callable[[], None]) -> None:
    """Start, call `ready`, and stay until this process is told to end; then both are stopped.

    Raises FederationError when one of the two ends by itself.
    """
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    try:
        start(kit)
        ready()
        daemons = (Proxy(kit).daemon, kit.superlink.daemon)
        while not told.wait(WATCH_S):
            for daemon in daemons:
                if daemon.pid() is None:
                    raise FederationError(f"{daemon.name} has ended; {daemon.log} ends with: {daemon.tail()}")
    finally:
        stop(kit)


def sync(kit: ServerKit) -> dict[str, list[str]]:
    """Make Flower's list of nodes equal to the keys in sites/; names that are "registered" and "unregistered" by that.

    Raises FederationError.
    """
    flwr, nodes = kit.running.flwr, _nodes(kit)
    known, wanted = _registered(kit, nodes), _wanted(kit)
    stay = {name: entry for name, entry in known.items() if wanted.get(name, (None, ""))[1] == entry["key"]}
    kept = {entry["node"] for entry in stay.values()}
    for node in nodes:
        if node not in kept:  # revoked, replaced, or registered by somebody else
            flwr("supernode", "unregister", node, CONNECTION)
    _remember(kit, stay)
    coming = {name: entry for name, entry in wanted.items() if name not in stay}

    def register(name: str) -> str:
        return str(flwr("supernode", "register", str(coming[name][0]), CONNECTION, "--name", name)["node-id"])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, node in zip(coming, pool.map(register, coming), strict=True):
            stay[name] = {"node": node, "key": coming[name][1]}
            _remember(kit, stay)
    return {"registered": sorted(coming), "unregistered": sorted(name for name in known if name not in wanted)}


def status(kit: ServerKit) -> dict[str, Any]:
    """What runs, and what Flower says of every site. Raises FederationError when Flower does not answer."""
    from fed_fsad.config import load_config  # imported late: the server starts and stops without torch

    superlink, proxy = kit.superlink, Proxy(kit)
    running = superlink.daemon.pid() is not None
    nodes = _nodes(kit) if running else {}
    hospitals = [hospital.name for hospital in load_config(kit.folder / "federation.yaml").hospitals]
    sites = dict.fromkeys(hospitals, "no key yet") | dict.fromkeys(_wanted(kit), "not registered")
    sites |= {name: nodes[entry["node"]] for name, entry in _registered(kit, nodes).items()}
    return {
        "address": f"https://{kit.address.address}:{kit.address.port}",
        "superlink": {"pid": superlink.daemon.pid(), "answers": running and superlink.healthy()},
        "nginx": {"pid": proxy.daemon.pid(), "answers": proxy.daemon.pid() is not None and proxy.healthy()},
        "sites": dict(sorted(sites.items())),
        "refused": _refused(kit),
    }


def _nodes(kit: ServerKit) -> dict[str, str]:
    """Status by node id, as Flower has it; nodes that were unregistered are left out."""
    listed = kit.superlink.flwr("supernode", "list", CONNECTION)["nodes"]
    return {node["node-id"]: node["status"] for node in listed if node["status"] != "unregistered"}


def _registered(kit: ServerKit, nodes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Node id and key by site name, of the sites that Flower still knows."""
    path = kit.var / REGISTERED
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: entry for name, entry in noted.items() if entry["node"] in nodes}


def _remember(kit: ServerKit, known: Mapping[str, Mapping[str, str]]) -> None:
    replace(kit.var / REGISTERED, (json.dumps(known, indent=1) + "\n").encode())


def _wanted(kit: ServerKit) -> dict[str, tuple[Path, str]]:
    """(file, fingerprint) of the public key of every site that may come, by its name."""
    return {path.stem: (path, fingerprint(path)) for path in sorted((kit.folder / "sites").glob("*.pub"))}


def _refused(kit: ServerKit) -> list[str]:
    """The last calls that the proxy, or Flower behind it, refused."""
    path = kit.var / "refused.log"
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST:] if path.exists() else []
