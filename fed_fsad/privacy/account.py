"""A ledger as its owner reads it: looking changes nothing, and a ledger in use can be looked at."""

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fed_fsad.errors import DataError, LedgerDamaged, PolicyRefusal
from fed_fsad.privacy.composition import spent
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.ledger_file import LedgerFile, damaged
from fed_fsad.privacy.lines import Charge, Header, Protected
from fed_fsad.privacy.records import Records

LEDGER = "ledger.jsonl"


@dataclass(frozen=True)
class RunShare:
    """What one run took of a ledger. epsilon: its charges alone, as if nothing else had been released."""

    run: str
    releases: int
    rounds: int
    epsilon: float


@dataclass(frozen=True)
class Account:
    """What is spent under a ledger in all, and by run, oldest first. insecure: releases with seeded noise.

    noise: by method, the standard deviation of the noise on its mean gradient over all releases, in units of C; times
    √d for d trained scalars this is ρ.
    """

    path: Path
    unit: Protected
    delta: float
    epsilon: float
    insecure: int
    runs: tuple[RunShare, ...]
    noise: Mapping[str, float]


def read_account(folder: Path) -> Account:
    """The account of the ledger in a state folder. Raises DataError when there is none, LedgerDamaged."""
    path = folder / LEDGER
    if not path.is_file():
        raise DataError(f"{folder} holds no {LEDGER}; name a site's state folder (nothing was released if it is new)")
    with _copy_of(path) as copy:
        header = _header(copy)
        if header is None:
            raise damaged(path, 1)
        with Ledger.open(copy, unit=header.unit, delta=header.delta, epsilon=math.inf) as ledger:
            shares = tuple(_share(run, ledger.charges, ledger.delta) for run in _runs(ledger.charges))
            noise = {method: _noise(method, records, ledger.charges) for method, records in ledger.records.items()}
            return Account(path, ledger.unit, ledger.delta, ledger.epsilon, ledger.insecure_releases, shares, noise)


def spent_so_far(folder: Path) -> float:
    """ε under the ledger in a state folder, whatever its unit and δ, which are those of the rounds that were paid for;
    0 where no ledger was begun. Raises LedgerDamaged.
    """
    path = folder / LEDGER
    if not path.exists():
        return 0.0
    with _copy_of(path) as copy:
        header = _header(copy)
        if header is None:
            return 0.0
        with Ledger.open(copy, unit=header.unit, delta=header.delta, epsilon=math.inf) as ledger:
            return ledger.epsilon


@contextmanager
def _copy_of(path: Path) -> Iterator[Path]:
    """A copy of a ledger to open in its place; errors name the original."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / LEDGER
        shutil.copyfile(path, copy)
        try:
            yield copy
        except LedgerDamaged as error:
            raise LedgerDamaged(str(error).replace(str(copy), str(path))) from error
        except PolicyRefusal as error:
            raise PolicyRefusal(error.code, str(error).replace(str(copy), str(path))) from error


def _header(path: Path) -> Header | None:
    """None in a ledger that was never begun."""
    file = LedgerFile(path)
    file.close()
    first = file.lines[0] if file.lines else None
    if first is not None and not isinstance(first, Header):
        raise damaged(path, 1)
    return first


def _runs(charges: tuple[Charge, ...]) -> list[str]:
    return list(dict.fromkeys(charge.request.run for charge in charges))


def _share(run: str, charges: tuple[Charge, ...], delta: float) -> RunShare:
    mine = [charge for charge in charges if charge.request.run == run]
    rounds = len({charge.request.round for charge in mine})
    cost = spent([charge.cost for charge in mine], delta)
    return RunShare(run, sum(charge.releases for charge in mine), rounds, cost)


def _noise(method: str, records: Records, charges: tuple[Charge, ...]) -> float:
    """The best mean of all releases weighs each by its signal against its noise; infinite before the first one."""
    told = math.fsum(c.releases * (c.rate / c.sigma) ** 2 for c in charges if c.request.method == method)
    return 1 / (math.sqrt(told) * len(records)) if told else math.inf
