"""The messages of secure aggregation as Flower records, beside the instruction and the reply of messages.py.

| step | server → site | site → server |
|---|---|---|
| announce | terms | two public keys |
| share | everybody's keys, the threshold, the instruction | a ciphertext per peer, a commitment |
| mask | the ciphertexts made for the site | the masked vector, or whose ciphertexts it cannot read |
| open | who is in the sum and who dropped out | one share per site |

Every question names its session and step; whatever comes from elsewhere is checked here, or MalformedMessage is raised.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import ValidationError

from fed_fsad.fields import MalformedMessage, config_of
from fed_fsad.messages import Reply, wire_bytes
from fed_fsad.secagg.crypto import PublicKeys, Vector, checked
from fed_fsad.secagg.site import Session, Terms

ACTION = "secure"
"""Flower's name for these messages: they are of type train.secure."""
KEY = "secure"
VECTOR = "masked"
STEPS = ("announce", "share", "mask", "open")
LONGEST_CIPHERTEXT = 1 << 20
COMMITMENT_BYTES = 32


@dataclass(frozen=True)
class SecureReply(Reply):
    """A reply with what one step adds to it. step: values by name. vector: the masked one, if this is that step's."""

    step: Mapping[str, Any] = field(default_factory=dict)
    vector: Vector | None = None

    def pack(self) -> RecordDict:
        """As Flower records."""
        content = super().pack()
        content[KEY] = ConfigRecord(dict(self.step))
        if self.vector is not None:
            content[VECTOR] = ArrayRecord({VECTOR: Array(self.vector)})
        return content


def question(step: str, terms: Terms, values: Mapping[str, Any]) -> ConfigRecord:
    """What a site is asked in one step."""
    return ConfigRecord({"step": step, **terms.model_dump(), **values})


def step_of(content: RecordDict) -> str:
    """Which step is asked for."""
    step = config_of(content, KEY).get("step")
    if step not in STEPS:
        raise MalformedMessage("the message asks for no step of secure aggregation")
    return str(step)


def check_session(content: RecordDict, session: Session, step: str) -> None:
    """Whether a question is the next one of the session that the site is in: steps are neither skipped nor repeated."""
    if config_of(content, KEY).get("session") != session.terms.session or session.next != step:
        raise MalformedMessage("the message is not the next step of this site's session: an old one was sent again")


def terms_of(content: RecordDict) -> Terms:
    """The terms of an announcement."""
    config = config_of(content, KEY)
    try:
        return Terms.model_validate({name: config.get(name) for name in Terms.model_fields})
    except ValidationError as error:
        raise MalformedMessage("the terms of secure aggregation make no sense") from error


def keys_step(public: PublicKeys) -> dict[str, bytes]:
    """What a site answers to an announcement."""
    return {"mask-key": public.mask, "channel-key": public.channel}


def keys_of(config: ConfigRecord) -> PublicKeys:
    """A site's public keys."""
    mask, channel = (checked(_bytes(config, name, 1000)) for name in ("mask-key", "channel-key"))
    if mask == channel:
        raise MalformedMessage("its two public keys are the same")
    return PublicKeys(mask, channel)


def roll_values(roll: Mapping[str, PublicKeys], threshold: int) -> dict[str, Any]:
    """Everybody's keys."""
    names = sorted(roll)
    masks, channels = [roll[name].mask for name in names], [roll[name].channel for name in names]
    return {"sites": names, "mask-keys": masks, "channel-keys": channels, "threshold": threshold}


def roll_of(content: RecordDict) -> tuple[dict[str, PublicKeys], int]:
    """Everybody's keys and the threshold; the keys themselves are checked by `site.admit`."""
    config = config_of(content, KEY)
    masks, channels = (by_site(config, name) for name in ("mask-keys", "channel-keys"))
    threshold = config.get("threshold")
    if not isinstance(threshold, int) or isinstance(threshold, bool):
        raise MalformedMessage("threshold of the message is no whole number")
    return {name: PublicKeys(masks[name], channels[name]) for name in masks}, threshold


def by_site(config: ConfigRecord, name: str, sites: str = "sites") -> dict[str, bytes]:
    """Bytes by site, from two lists of the same length."""
    names, values = names_of(config, sites), config.get(name)
    if not isinstance(values, list) or len(values) != len(names):
        raise MalformedMessage(f"{name} of the message is no list of one entry per site")
    if any(not isinstance(value, bytes) or len(value) > LONGEST_CIPHERTEXT for value in values):
        raise MalformedMessage(f"{name} of the message holds something else than short bytes")
    return dict(zip(names, values, strict=True))  # type: ignore[arg-type]


def names_of(config: ConfigRecord, key: str) -> list[str]:
    """Names of sites, each once."""
    names = config.get(key)
    if not isinstance(names, list) or any(not isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise MalformedMessage(f"{key} of the message is no list of sites")
    return [str(name) for name in names]


def commitment_of(config: ConfigRecord) -> bytes:
    """A site's commitment to its mask seed."""
    found = _bytes(config, "commitment", COMMITMENT_BYTES)
    if len(found) != COMMITMENT_BYTES:
        raise MalformedMessage(f"its commitment has {len(found)} bytes, not {COMMITMENT_BYTES}")
    return found


def accused(config: ConfigRecord) -> list[str]:
    """Whose ciphertexts a site cannot read."""
    return names_of(config, "unreadable") if "unreadable" in config else []


def vector_of(record: ArrayRecord | None, length: int) -> Vector:
    """The masked vector, [length]."""
    try:
        vector: NDArray[Any] = np.zeros(0) if record is None else record[VECTOR].numpy()
    except Exception as error:  # bytes of a stranger: whatever NumPy makes of them is their fault
        raise MalformedMessage("its masked vector cannot be read") from error
    if vector.dtype != np.uint32 or vector.shape != (length,):
        raise MalformedMessage(f"its masked vector is {vector.dtype} {vector.shape}, not uint32 ({length},)")
    return vector


def bytes_of(content: RecordDict) -> int:
    """Bytes of all arrays in a message and of the keys, ciphertexts and shares beside them."""
    values = list(content.config_records.get(KEY, ConfigRecord()).values())
    flat = [part for value in values for part in (value if isinstance(value, list) else [value])]
    return wire_bytes([content]) + sum(len(part) for part in flat if isinstance(part, bytes))


def _bytes(config: ConfigRecord, key: str, most: int) -> bytes:
    value = config.get(key)
    if not isinstance(value, bytes) or len(value) > most:
        raise MalformedMessage(f"{key} of the message is no short bytes")
    return value
