"""A site's four steps: announce keys, share secrets, mask, open. Each is taken once, in this order, per session.

A session is one try at one round; its keys and masks are made for it and never used again. What lies between two steps
is a `Session`, which the caller keeps at the site and which forgets every secret as soon as it is not needed.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np
from cryptography.fernet import InvalidToken
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fed_fsad.config.secure import MODULUS, SMALLEST
from fed_fsad.errors import PolicyRefusal
from fed_fsad.fields import MalformedMessage
from fed_fsad.secagg import crypto
from fed_fsad.secagg.crypto import PublicKeys, Vector
from fed_fsad.secagg.vector import Layout


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class Terms(_Model):
    """What a session is for. session: a name that the server never uses again. smallest: sites in every sum. whole:
    what a site has not trained counts as not moved, because under hospital-level privacy one hospital less must not
    change what becomes of another one's update.
    """

    session: str = Field(pattern="^[0-9a-f]{32}$")
    run: str = Field(max_length=200)
    round: int = Field(ge=1)
    attempt: int = Field(ge=1)
    smallest: int = Field(ge=SMALLEST)
    clip_norm: float = Field(gt=0, allow_inf_nan=False)
    target_range: int = Field(ge=2, lt=MODULUS)
    whole: bool


class Share(_Model):
    """What one site entrusts to another, encrypted: a share of its mask seed, one of its private mask key, and which
    pieces it has trained. The server reads none of it.
    """

    session: str
    source: str
    target: str
    seed: bytes
    key: bytes
    pieces: tuple[str, ...]


class Session(_Model):
    """A site's side of a session between two steps. next: the only step it takes now. held: shares by their owner, its
    own included. channels: keys of the encrypted channels by peer.
    """

    terms: Terms
    site: str
    next: Literal["share", "mask", "open"]
    mask_key: bytes = b""
    channel_key: bytes = b""
    public: PublicKeys
    seed: bytes = b""
    threshold: int = 0
    peers: dict[str, PublicKeys] = {}
    channels: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    held: dict[str, Share] = {}


class UnreadableShare(Exception):
    """Shares that were not made for this site and session. `sources`: who is said to have sent them."""

    def __init__(self, sources: list[str]) -> None:
        super().__init__(", ".join(sources))
        self.sources = sources


def announce(terms: Terms, site: str) -> tuple[Session, PublicKeys]:
    """Fresh keys. What leaves: the public ones."""
    mask_key, mask_public = crypto.key_pair()
    channel_key, channel_public = crypto.key_pair()
    public = PublicKeys(mask_public, channel_public)
    opened = Session(terms=terms, site=site, next="share", mask_key=mask_key, channel_key=channel_key, public=public)
    return opened, public


def admit(session: Session, roll: Mapping[str, PublicKeys], threshold: int, smallest: int) -> None:
    """Whether the sites of `roll` may hide each other's updates; a site asks before it trains.

    smallest: of the site's own policy. Raises PolicyRefusal and MalformedMessage.
    """
    if len(roll) < max(session.terms.smallest, smallest):
        raise PolicyRefusal("cohort_too_small", "too few sites would hide this one's update: invite more sites")
    if not len(roll) < 2 * threshold <= 2 * len(roll):
        raise MalformedMessage("a threshold of half the sites or less lets a server unmask single updates")
    if roll.get(session.site) != session.public:
        raise MalformedMessage("the list of keys shows another key for this site")
    keys = [crypto.checked(key) for pair in roll.values() for key in pair]
    if len(set(keys)) < len(keys):
        raise MalformedMessage("the list of keys holds a key twice")


def share(
    session: Session, roll: Mapping[str, PublicKeys], threshold: int, layout: Layout, pieces: tuple[str, ...]
) -> tuple[Session, dict[str, bytes], bytes]:
    """After `admit`: shares of both secrets for every site of `roll`. What leaves: one ciphertext per peer, and a
    commitment to the mask seed.
    """
    seed, names = crypto.fresh_seed(), sorted(roll)
    seeds, keys = (crypto.split(secret, threshold, len(names)) for secret in (seed, session.mask_key))
    channels = {name: crypto.agreed(session.channel_key, roll[name].channel) for name in names if name != session.site}
    sent, held = {}, {}
    for name, own_seed, own_key in zip(names, seeds, keys, strict=True):
        given = Share(
            session=session.terms.session, source=session.site, target=name, seed=own_seed, key=own_key, pieces=pieces
        )
        if name == session.site:
            held[name] = given
        else:
            sent[name] = encrypt(channels[name], given.model_dump_json().encode())
    later = {"next": "mask", "seed": seed, "threshold": threshold, "peers": dict(roll), "channels": channels}
    later |= {"sizes": dict(layout.sizes), "held": held, "channel_key": b""}
    return session.model_copy(update=later), sent, crypto.commitment(seed)


def mask(session: Session, sealed: Mapping[str, bytes], vector: Vector, smallest: int) -> tuple[Session, Vector]:
    """The site's vector under its own mask and one with each peer whose shares came. What leaves: that vector.

    sealed: ciphertexts by the peer that made them. vector: filled by the session's layout, and changed in place.
    smallest: of the site's own policy. Pieces that fewer sites have trained than the terms ask for are taken out: their
    sum would tell of one. Raises PolicyRefusal, MalformedMessage, and UnreadableShare.
    """
    if not set(sealed) <= set(session.channels):
        raise MalformedMessage("shares come from sites whose keys were never shown")
    if len(sealed) + 1 < max(session.terms.smallest, session.threshold, smallest):
        raise PolicyRefusal("cohort_too_small", "too few sites would hide this one's update: invite more sites")
    session = session.model_copy(update={"held": {**session.held, **_unsealed(session, sealed)}})
    layout = Layout(session.sizes)
    layout.blank(vector, set(layout.pieces) - set(_summed(session, set(session.held), smallest)))
    vector += crypto.mask(session.seed, layout.length)
    for peer in sorted(sealed):
        pair = crypto.pair_mask(session.mask_key, session.peers[peer].mask, layout.length)
        operation = np.add if session.site > peer else np.subtract
        operation(vector, pair, out=vector)
    forgotten = {"next": "open", "mask_key": b"", "seed": b"", "channels": {}, "peers": {}}
    return session.model_copy(update=forgotten), vector


def open_(session: Session, active: set[str], dropped: set[str], smallest: int) -> dict[str, bytes]:
    """Shares that take the masks off the sum of the `active` sites. What leaves: one share per site, of the seed of an
    active one or of the mask key of a dropped one, never both: with both, a single update could be unmasked.

    Raises PolicyRefusal and MalformedMessage.
    """
    if active & dropped or active | dropped != set(session.held) or session.site not in active:
        raise MalformedMessage("the sites to unmask are not those of this session")
    if len(active) < max(session.terms.smallest, session.threshold, smallest):
        raise PolicyRefusal("cohort_too_small", "too few sites are left in the sum: invite more sites")
    if any(count < session.terms.smallest for count in _summed(session, active, smallest).values()):
        raise PolicyRefusal("part_too_rare", "too few sites are left that trained one of the parts: ask more sites")
    return {site: given.seed if site in active else given.key for site, given in session.held.items()}


def _summed(session: Session, sites: set[str], smallest: int) -> Counter[str]:
    """How many of `sites` send each piece, of those that enough sites of the session have trained to be sent at all.

    Raises PolicyRefusal when one of the site's own is behind that of fewer than `smallest` sites.
    """
    trained = Counter(name for given in session.held.values() for name in given.pieces)
    entered = {name for name, count in trained.items() if count >= session.terms.smallest}
    counts = Counter(name for site in sites for name in session.held[site].pieces if name in entered)
    if any(counts[name] < smallest for name in session.held[session.site].pieces if name in entered):
        raise PolicyRefusal("part_too_rare", "too few sites trained one of this site's parts: ask more sites")
    return counts


def _unsealed(session: Session, sealed: Mapping[str, bytes]) -> dict[str, Share]:
    found, bad = {}, []
    known = set(Layout(session.sizes).pieces)
    for source, text in sorted(sealed.items()):
        try:
            given = Share.model_validate_json(decrypt(session.channels[source], text))
        except (InvalidToken, ValidationError):
            bad.append(source)
            continue
        meant = (given.session, given.source, given.target) == (session.terms.session, source, session.site)
        if not meant or len(set(given.pieces)) < len(given.pieces) or not set(given.pieces) <= known:
            bad.append(source)
        found[source] = given
    if bad:
        raise UnreadableShare(bad)
    return found
