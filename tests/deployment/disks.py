"""What sites of the tests keep: images with planted names, and a disk that is soon full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import write_image

PAGE_BYTES = 4096
PRIVATE = (
    "{privacy: example, epsilon: 1000000, largest_rho: 1000000, methods: {d24fad: [affine]}, smallest_cohort: 1}\n"
)


def planted_images(folder: Path) -> None:
    """A small set with names of patients in paths and in the manifest, and one file that is no image."""
    lines = ["path,split,label,categories,patient,mask"]
    for number in range(16):
        label = "normal" if number % 2 else "abnormal"
        path = f"ward/Mustermann-{number}.png"
        write_image(folder / path, seed=1000 + number, size=(96, 96))
        lines.append(f"{path},train,{label},,PID-90210-{number},")
    (folder / "ward" / "Mustermann-broken.png").write_bytes(b"no image")
    lines.append("ward/Mustermann-broken.png,train,normal,,PID-90210-broken,")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of 2 MB at the folder where one can be mounted; otherwise the folder stays what it is."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> Path:
    """Take all that is left of a disk but one page: the next longer write breaks off in its middle. The file made."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE_BYTES))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - PAGE_BYTES))
    return path
