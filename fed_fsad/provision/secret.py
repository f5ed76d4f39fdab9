"""Files that only their owner may read."""

import os
from pathlib import Path

from fed_fsad.durable import append, sync_folder
from fed_fsad.errors import ConfigError


def write_secret(path: Path, content: bytes) -> None:
    """Make a new file of mode 0600. Raises ConfigError when there is one already: keys are never overwritten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists already and is not overwritten; move it away first") from error
    with os.fdopen(handle, "wb") as file:
        append(file, content)
    sync_folder(path.parent)
