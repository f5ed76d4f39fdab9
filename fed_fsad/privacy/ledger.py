"""The hospital's privacy account: one append-only file that outlives rounds, runs, restarts and servers."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from fed_fsad.errors import BudgetSpent, PolicyRefusal
from fed_fsad.privacy.accounting import gaussian_epsilon, mu_squared
from fed_fsad.privacy.composition import Releases, noise_within, spent
from fed_fsad.privacy.ledger_file import LedgerFile, damaged
from fed_fsad.privacy.lines import Charge, Header, Protected, Request, Split
from fed_fsad.privacy.records import Records

CLOCK_SLACK = timedelta(minutes=5)
"""How far a clock may go back between two charges: as far as Flower lets clocks differ."""


class Ledger:
    """An open ledger; while it is open nobody else can open it. Use it as a context manager."""

    def __init__(self, file: LedgerFile, header: Header, epsilon: float) -> None:
        self._file = file
        self._header = header
        self._budget = epsilon
        self._splits = {line.method: line.records for line in file.lines if isinstance(line, Split)}
        self._charges = [line for line in file.lines if isinstance(line, Charge)]

    @classmethod
    def open(cls, path: Path, *, unit: Protected, delta: float, epsilon: float) -> "Ledger":
        """Open or begin the ledger at `path` with a budget of `epsilon`.

        Raises PolicyRefusal when it is in use, cannot be written, or was begun for another unit or δ, and DataError
        when it is damaged. A torn last line is dropped: its charge never returned, so nothing was released under it.
        """
        file = LedgerFile(path)
        try:
            header = file.lines[0] if file.lines else Header(unit=unit, delta=delta)
            if not isinstance(header, Header):
                raise damaged(path, 1)
            _check_sums(file, header.delta)
            if (header.unit, header.delta) != (unit, delta):
                raise PolicyRefusal(
                    "ledger_of_another_guarantee",
                    f"the ledger {path} accounts for unit {header.unit} and delta {header.delta:g}, not for "
                    f"unit {unit} and delta {delta:g}: set the policy back, or what the server asks for",
                )
            if not file.lines:
                file.append(header)
        except BaseException:
            file.close()
            raise
        return cls(file, header, epsilon)

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others open the ledger."""
        self._file.close()

    @property
    def unit(self) -> Protected:
        """Whom the guarantee protects."""
        return self._header.unit

    @property
    def delta(self) -> float:
        """δ, fixed when the ledger was begun."""
        return self._header.delta

    @property
    def epsilon(self) -> float:
        """ε spent so far, over everything in the ledger."""
        return spent((charge.cost for charge in self._charges), self.delta)

    @property
    def charges(self) -> tuple[Charge, ...]:
        """All that was ever charged, oldest first."""
        return tuple(self._charges)

    @property
    def records(self) -> Mapping[str, Records]:
        """The records that every method was bound to."""
        return dict(self._splits)

    @property
    def insecure_releases(self) -> int:
        """Releases whose noise was seeded: with any of these, ε means nothing."""
        return sum(charge.releases for charge in self._charges if not charge.secure)

    def freeze(self, method: str, records: Records) -> None:
        """Bind a method to its records for good. Raises PolicyRefusal when it is bound to others already."""
        frozen = self._splits.get(method)
        if frozen is None:
            self._file.append(Split(method=method, records=records))
            self._splits[method] = records
        elif frozen != records:
            raise PolicyRefusal(
                "split_changed",
                f"the images of this site are not those that the ledger {self._file.path} guards for {method}: "
                "restore them and the seed they were split with",
            )

    def would_exceed(self, releases: int, sigma: float, rate: float = 1.0) -> bool:
        """Whether `releases` more releases with noise multiplier σ go beyond the budget; rate 1 is a full batch."""
        return self._epsilon_after(Releases(releases, sigma, rate)) > self._budget

    def require(self, releases: int, sigma: float, rate: float = 1.0) -> None:
        """Raise BudgetSpent when `would_exceed`, PolicyRefusal when the clock was set back."""
        self._check_clock()
        if self.would_exceed(releases, sigma, rate):
            raise self._spent()

    def noise_for(self, run: str, releases: int, rates: Sequence[float] = (1.0,)) -> float:
        """The σ with which `releases` releases of `run` at each of `rates` fit into what all other runs left.

        Charges of `run` itself do not enter: asked again after a restart, the answer is the same. Raises BudgetSpent.
        """
        others = [charge.cost for charge in self._charges if charge.request.run != run]
        sigma = noise_within(self._budget, self.delta, others, releases, rates)
        if sigma is None:
            raise self._spent()
        return sigma

    def charge(
        self, request: Request, release: str, *, releases: int, sigma: float, secure: bool, rate: float = 1.0
    ) -> Charge:
        """Pay for bytes with SHA-256 `release` BEFORE they leave; on disk when this returns.

        The same bytes for the same request are paid for once. Raises BudgetSpent before anything is written.
        """
        cost = mu_squared(releases, sigma)
        for old in self._charges:
            paid = (old.request, old.release) == (request, release)
            if paid and old.mu_squared >= cost and old.rate >= rate:
                return old
        self.require(releases, sigma, rate)
        charge = Charge(
            request=request,
            release=release,
            releases=releases,
            sigma=sigma,
            rate=rate,
            mu_squared=cost,
            mu_squared_after=math.fsum([cost, *(charge.mu_squared for charge in self._charges)]),
            epsilon_after=self._epsilon_after(Releases(releases, sigma, rate)),
            secure=secure,
            time=datetime.now(UTC),
        )
        self._file.append(charge)
        self._charges.append(charge)
        return charge

    def _check_clock(self) -> None:
        """Times tell when what was paid for: one that lies ahead means that the clock, or the file, is wrong."""
        now = datetime.now(UTC)
        if self._charges and (last := self._charges[-1].time) > now + CLOCK_SLACK:
            raise PolicyRefusal(
                "clock_set_back",
                f"the last charge in the ledger {self._file.path} was made at {last:%Y-%m-%d %H:%M} UTC and the clock "
                f"says {now:%Y-%m-%d %H:%M} UTC: set the clock right",
            )

    def _epsilon_after(self, more: Releases) -> float:
        return spent([*(charge.cost for charge in self._charges), more], self.delta)

    def _spent(self) -> BudgetSpent:
        return BudgetSpent(
            f"ε = {self.epsilon:.3g} of {self._budget:g} is spent and what was asked does not fit into the rest: "
            "only a larger epsilon in the policy, which weakens the guarantee, would allow it"
        )


def _check_sums(file: LedgerFile, delta: float) -> None:
    """Raise DataError at the first charge whose sums do not follow from the charges above it: a line is missing.

    ε itself is checked where lines have no sum of costs: of sampled batches it takes seconds, and digits may change.
    """
    total = 0.0
    for number, line in enumerate(file.lines, start=1):
        if isinstance(line, Charge):
            total += line.mu_squared
            told, expected = line.mu_squared_after, total
            if told is None:
                told, expected = line.epsilon_after, gaussian_epsilon(math.sqrt(total), delta)
            if not math.isclose(told, expected, rel_tol=1e-6):
                raise damaged(file.path, number)
        elif isinstance(line, Header) and number > 1:
            raise damaged(file.path, number)
