"""A site's side of secure aggregation: it trains as ever, and what leaves is masked.

Between two steps a session lies in the site's state folder, for its own user only. A step is noted as taken before its
answer leaves, so no mask is ever used for a second vector, whatever a server asks again and whenever a site restarts.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import RecordDict
from pydantic import ValidationError

from clients.site import Site
from clients.train import Observer, train_round
from fed_fsad import __version__
from fed_fsad.durable import replace as write
from fed_fsad.errors import PolicyRefusal
from fed_fsad.fields import MalformedMessage, config_of
from fed_fsad.messages import Instruction
from fed_fsad.privacy.hospital import flat
from fed_fsad.privacy.policy import Policy
from fed_fsad.secagg import site as protocol
from fed_fsad.secagg import wire
from fed_fsad.secagg.crypto import Vector
from fed_fsad.secagg.site import Session, Terms, UnreadableShare
from fed_fsad.secagg.vector import Layout, Quantiser, piece
from fed_fsad.secagg.wire import SecureReply

TOLD = (
    "site", "version", "run", "round", "attempt", "role", "seconds", "epsilon", "delta", "unit", "claim", "evaluation",
)  # fmt: skip
"""What of a reply leaves in the clear: no tensor, no loss, no number of images."""

Work = Callable[[Site, RecordDict, Observer], SecureReply]


def admit_unmasked(policy: Policy) -> None:
    """Raise PolicyRefusal when the policy lets updates leave under masks only."""
    if policy.secure_aggregation:
        raise PolicyRefusal(
            "not_masked", "the server asks for an update of its own: set privacy.secure_aggregation: on there"
        )


def secure_step(site: Site, content: RecordDict, observer: Observer) -> SecureReply:
    """One step of a session. Raises what `train_round` raises, PolicyRefusal when too few sites would hide this one's
    update, and MalformedMessage.
    """
    steps: dict[str, Work] = {"announce": _announce, "share": _share, "mask": _mask, "open": _open}
    return steps[wire.step_of(content)](site, content, observer)


def _announce(site: Site, content: RecordDict, observer: Observer) -> SecureReply:
    terms = wire.terms_of(content)
    session, public = protocol.announce(terms, site.name)
    kept = _Kept(site, terms.run)
    kept.remove()
    kept.save(session)
    return _reply(site, terms, wire.keys_step(public))


def _share(site: Site, content: RecordDict, observer: Observer) -> SecureReply:
    kept, session = _next(site, content, "share")
    terms, (roll, threshold), instruction = session.terms, wire.roll_of(content), Instruction.unpack(content)
    if (instruction.run, instruction.round, instruction.attempt) != (terms.run, terms.round, terms.attempt):
        raise MalformedMessage("the instruction is of another round than the session")
    protocol.admit(session, roll, threshold, site.policy.smallest_cohort)
    reply = train_round(site, replace(instruction, cohort=len(roll)), observer)
    received, trained = flat(instruction.tensors), flat(reply.tensors)
    if terms.whole:
        trained = {**received, **trained}
    update = {name: tensor.double().cpu() - received[name].double() for name, tensor in trained.items()}
    layout = Layout.of(instruction.tensors)
    vector = layout.fill(Quantiser(terms.clip_norm, terms.target_range).steps(update))
    pieces = tuple(sorted({piece(name) for name in update}))
    session, sealed, commitment = protocol.share(session, roll, threshold, layout, pieces)
    kept.save(session, vector)
    peers = sorted(sealed)
    step = {"sites": peers, "ciphertexts": [sealed[peer] for peer in peers], "commitment": commitment}
    return SecureReply(**{name: getattr(reply, name) for name in TOLD}, step=step)


def _mask(site: Site, content: RecordDict, observer: Observer) -> SecureReply:
    kept, session = _next(site, content, "mask")
    sealed = wire.by_site(config_of(content, wire.KEY), "ciphertexts")
    try:
        session, vector = protocol.mask(session, sealed, kept.vector(), site.policy.smallest_cohort)
    except UnreadableShare as error:
        kept.remove()
        reason = f"it cannot read the shares that came as those of {error}"
        told = _reply(site, session.terms, {"unreadable": error.sources})
        return replace(told, status="error", reason=reason)
    except PolicyRefusal:
        kept.remove()
        raise
    kept.save(session)
    return replace(_reply(site, session.terms, {}), vector=vector)


def _open(site: Site, content: RecordDict, observer: Observer) -> SecureReply:
    kept, session = _next(site, content, "open")
    config = config_of(content, wire.KEY)
    active, dropped = (set(wire.names_of(config, name)) for name in ("active", "dropped"))
    kept.remove()
    shares = protocol.open_(session, active, dropped, site.policy.smallest_cohort)
    owners = sorted(shares)
    return _reply(site, session.terms, {"sites": owners, "shares": [shares[owner] for owner in owners]})


def _reply(site: Site, terms: Terms, step: dict[str, Any]) -> SecureReply:
    return SecureReply(
        site.name, __version__, run=terms.run, round=terms.round, attempt=terms.attempt, role=site.role, step=step
    )


def _next(site: Site, content: RecordDict, step: str) -> tuple["_Kept", Session]:
    """The session that the message goes on with. Raises MalformedMessage when there is none."""
    kept = _Kept(site, str(config_of(content, wire.KEY).get("run")))
    session = kept.session()
    wire.check_session(content, session, step)
    return kept, session


class _Kept:
    """What a run's session leaves at the site between two steps."""

    def __init__(self, site: Site, run: str) -> None:
        # the run's name comes from the server: hashed, it can only ever name a folder here
        self._folder = site.state / "secure" / hashlib.sha256(run.encode()).hexdigest()[:16]

    def save(self, session: Session, vector: Vector | None = None) -> None:
        """Note the session as it is now; a vector of an earlier step is forgotten."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if vector is not None:
            write(self._folder / "vector.npy", vector.tobytes())
        write(self._folder / "session.json", session.model_dump_json().encode())
        if vector is None:
            (self._folder / "vector.npy").unlink(missing_ok=True)

    def session(self) -> Session:
        """Raises MalformedMessage when none is kept: the site was never asked, or its folder was emptied."""
        try:
            return Session.model_validate_json((self._folder / "session.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise MalformedMessage("this site is in no session of secure aggregation of that run") from error

    def vector(self) -> Vector:
        """[L] uint32."""
        return np.frombuffer(bytearray((self._folder / "vector.npy").read_bytes()), dtype=np.uint32)

    def remove(self) -> None:
        """Forget the session."""
        shutil.rmtree(self._folder, ignore_errors=True)
