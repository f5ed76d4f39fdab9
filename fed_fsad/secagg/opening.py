"""The server's side of the last step: with enough shares, the masks come off the sum, and off nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fed_fsad.errors import FederationError
from fed_fsad.secagg import crypto
from fed_fsad.secagg.crypto import PublicKeys, Vector

Shares = Mapping[str, Mapping[str, bytes]]
"""Shares by holder, then by owner."""


@dataclass(frozen=True)
class Cohort:
    """Who took part in a session. keys: of every site that shared its secrets. commitments: to their mask seeds."""

    keys: Mapping[str, PublicKeys]
    commitments: Mapping[str, bytes]
    threshold: int


def unmask(total: Vector, cohort: Cohort, active: set[str], shares: Shares) -> tuple[Vector, dict[str, str]]:
    """[L] the sum of the active sites' vectors without masks, and by site what was wrong with the shares it gave.

    total: the sum of their masked vectors. Everybody else of the cohort has dropped out after the secrets were shared.
    Raises FederationError when too few right shares came.
    """
    bare, wrong = total.copy(), dict[str, str]()
    for owner in sorted(cohort.keys):
        given = {holder: own[owner] for holder, own in shares.items() if owner in own}
        secret, liars = _secret(owner, cohort, given, alive=owner in active)
        wrong |= dict.fromkeys(liars, f"the share it gave of the secret of {owner} is wrong")
        if owner in active:
            bare -= crypto.mask(secret, len(total))
            continue
        for site in sorted(active):
            pair = crypto.pair_mask(secret, cohort.keys[site].mask, len(total))
            np.subtract(bare, pair, out=bare) if site > owner else np.add(bare, pair, out=bare)
    return bare, wrong


def _secret(owner: str, cohort: Cohort, given: Mapping[str, bytes], alive: bool) -> tuple[bytes, list[str]]:
    def right(secret: bytes) -> bool:
        if alive:
            return len(secret) == crypto.SEED_BYTES and crypto.commitment(secret) == cohort.commitments[owner]
        return crypto.belongs(secret, cohort.keys[owner].mask)

    found = crypto.join(given, cohort.threshold, right)
    if found is None:
        raise FederationError(
            f"{len(given)} shares of the secret of {owner} came and {cohort.threshold} right ones are needed; "
            "lower privacy.secure.reconstruct, or mend the sites that dropped out"
        )
    return found
