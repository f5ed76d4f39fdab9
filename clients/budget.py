"""What is spent of the site's privacy budget, without disturbing the ledger."""

from pathlib import Path

from fed_fsad.privacy.account import LEDGER, copy_of
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.policy import Policy


def spent_so_far(state: Path, policy: Policy) -> float:
    """ε in the site's ledger, read from a copy: the real one may be in use, and looking must change nothing.

    Raises LedgerDamaged, and PolicyRefusal when the ledger is of another guarantee.
    """
    if not (path := state / LEDGER).exists():
        return 0.0
    with (
        copy_of(path) as copy,
        Ledger.open(copy, unit=policy.unit, delta=policy.delta, epsilon=policy.epsilon) as ledger,
    ):
        return ledger.epsilon
