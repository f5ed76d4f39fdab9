"""What is spent of the site's privacy budget, without disturbing the ledger."""

import shutil
import tempfile
from pathlib import Path

from fed_fsad.errors import LedgerDamaged, PolicyRefusal
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.policy import Policy

LEDGER = "ledger.jsonl"


def spent_so_far(state: Path, policy: Policy) -> float:
    """ε in the site's ledger, read from a copy: the real one may be in use, and looking must change nothing.

    Raises LedgerDamaged, and PolicyRefusal when the ledger is of another guarantee.
    """
    original = state / LEDGER
    if not original.exists():
        return 0.0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / LEDGER
        shutil.copyfile(original, copy)
        try:
            with Ledger.open(copy, unit=policy.unit, delta=policy.delta, epsilon=policy.epsilon) as ledger:
                return ledger.epsilon
        except LedgerDamaged as error:
            raise LedgerDamaged(str(error).replace(str(copy), str(original))) from error
        except PolicyRefusal as error:
            raise PolicyRefusal(error.code, str(error).replace(str(copy), str(original))) from error
