"""One line of a check: what was found, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Line:
    """What one check found. text: the true cause in a sentence. remedy: what to do, "" when nothing is."""

    status: Status
    text: str
    remedy: str = ""


def ok(text: str) -> Line:
    """Nothing to do."""
    return Line("ok", text)


def warn(text: str, remedy: str) -> Line:
    """The site can run; somebody should look at this."""
    return Line("warn", text, remedy)


def fail(text: str, remedy: str) -> Line:
    """The site cannot run like this."""
    return Line("fail", text, remedy)
