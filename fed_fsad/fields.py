"""What a stranger wrote into a record: read field by field, cut to size, or refused by name."""

import math
from typing import TypeGuard, TypeVar, get_args

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fed_fsad.privacy.records import Unit

Record = TypeVar("Record", ArrayRecord, MetricRecord, ConfigRecord)

LONGEST_TEXT = 1000
"""Letters of a text that are kept: all of it lands in the server's log, its report and on its screen."""


class MalformedMessage(ValueError):
    """A message that does not keep the contract; the text names the first thing wrong with it."""


def records_of(content: RecordDict, kind: type[Record]) -> dict[str, Record]:
    """The records of one kind. Flower's own properties check and copy all of them at every look."""
    return {key: record for key, record in content.items() if isinstance(record, kind)}


def config_of(content: RecordDict, key: str) -> ConfigRecord:
    """The message's record of settings called `key`. Raises MalformedMessage, as everything here."""
    record = content.get(key)
    if not isinstance(record, ConfigRecord):
        raise MalformedMessage(f"the message has no {key!r} record")
    return record


def account(config: ConfigRecord) -> tuple[float | None, float | None, str | None]:
    """ε, δ and the unit they protect: all or none, and within their ranges."""
    epsilon, delta, unit = number(config, "epsilon"), number(config, "delta"), config.get("unit")
    if epsilon is None and delta is None and unit is None:
        return None, None, None
    if epsilon is None or epsilon < 0 or delta is None or not 0 < delta < 1 or unit not in get_args(Unit):
        raise MalformedMessage("the reply's epsilon, delta and unit are no privacy account")
    return epsilon, delta, str(unit)


def number(config: ConfigRecord, key: str) -> float | None:
    """A finite number, or None when there is none."""
    value = config.get(key)
    if value is None:
        return None
    if not is_finite(value):
        raise MalformedMessage(f"{key} of the reply is no finite number")
    return float(value)


def count(config: ConfigRecord, key: str) -> int:
    """A whole number that counts something; 0 when there is none."""
    value = config.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise MalformedMessage(f"{key} of the reply is no count")
    return value


def is_finite(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number that a float and a log can hold."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


def text(config: ConfigRecord, key: str) -> str:
    """A text as one printable line, so that it cannot steer a terminal or swamp a log; "" when there is none."""
    value = config.get(key, "")
    if not isinstance(value, str):
        raise MalformedMessage(f"{key} of the reply is no text")
    printable = "".join(letter if letter.isprintable() else " " for letter in value[: 4 * LONGEST_TEXT])
    return " ".join(printable.split())[:LONGEST_TEXT]
