"""The site's own memory of what it answered: full texts for the hospital, of which the server only gets codes.

In the state folder: site.log for people, rotating; answers.jsonl for `fed-fsad site status`, one line per round.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, RecordDict

from clients.settings import load_settings
from fed_fsad.durable import append
from fed_fsad.errors import ConfigError

LOG = "site.log"
ANSWERS = "answers.jsonl"
LOG_BYTES = 1 << 20
LOGS_KEPT = 3

log = logging.getLogger("fed_fsad.site")


def recorded(context: Context, content: RecordDict, answer: Callable[[], RecordDict]) -> RecordDict:
    """`answer`, with everything it logs and how it ended kept at the site; a simulated site keeps nothing.

    A full disk or a folder without permission never costs the answer: what cannot be kept is said on stderr.
    """
    state = _state(context)
    if state is None:
        return answer()
    asked = content.config_records.get("instruction") or content.config_records.get("secure") or ConfigRecord()
    run, round_ = str(asked.get("run", "")), asked.get("round", 0)
    with _kept_log(state, f"run {_printable(run)} round {_printable(round_)}") as troubles:
        log.info("asked")
        reply = answer()
        sent = "update" if reply.array_records else "figures" if reply.metric_records else "nothing"
        log.info("answered: %s, %s sent", reply.config_records["reply"]["status"], sent)
    said = reply.config_records["reply"]
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run,
        "round": round_,
        "status": said["status"],
        "sent": sent,
        "reason": said["reason"],
        "trouble": troubles[-1] if troubles else None,
    }
    try:
        with (state / ANSWERS).open("ab") as file:
            append(file, (json.dumps(line) + "\n").encode())
    except OSError as error:
        log.error("%s cannot be written (%s); make room or grant access to it", state / ANSWERS, error.strerror)
    return reply


def answers(state: Path) -> list[dict[str, Any]]:
    """What the site answered so far, oldest first; lines that a crash cut short are left out."""
    try:
        lines = (state / ANSWERS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{state / ANSWERS} cannot be read ({error.strerror}); grant access to it") from error
    found = []
    for line in lines:
        try:
            found.append(dict(json.loads(line)))
        except ValueError:
            continue
    return found


def _state(context: Context) -> Path | None:
    """The state folder of a real site; None in a simulation, and when site.yaml cannot tell."""
    if "site-config" not in context.node_config:
        return None
    try:
        state = load_settings(Path(str(context.node_config["site-config"]))).state
        state.mkdir(parents=True, exist_ok=True)
    except (ConfigError, OSError):
        return None
    return state


class _Troubles(logging.Handler):
    """Collects the warnings and errors of one answer."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        told = f" ({record.exc_info[1]!r})" if record.exc_info else ""
        self.texts.append(record.getMessage() + told)


def _printable(value: object) -> str:
    """Eight letters at most of what a server sent: it may not write lines of its own into a log."""
    return "".join(letter for letter in str(value) if letter.isalnum())[:8]


@contextmanager
def _kept_log(state: Path, heading: str) -> Iterator[list[str]]:
    """All that fed_fsad logs goes to the site's log as well, with the time and `heading`; yields the troubles."""
    ours = logging.getLogger("fed_fsad")
    file = RotatingFileHandler(state / LOG, maxBytes=LOG_BYTES, backupCount=LOGS_KEPT, delay=True, encoding="utf-8")
    file.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {heading}: %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    troubles, before = _Troubles(), ours.level
    ours.setLevel(logging.INFO)
    for handler in (file, troubles):
        ours.addHandler(handler)
    try:
        yield troubles.texts
    finally:
        ours.setLevel(before)
        for handler in (file, troubles):
            ours.removeHandler(handler)
            handler.close()
