"""The hospital's privacy account: one append-only file that outlives rounds, runs, restarts and servers."""

import math
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from fed_fsad.errors import BudgetSpent, PolicyRefusal
from fed_fsad.privacy.accounting import gaussian_epsilon, mu_squared, noise_for
from fed_fsad.privacy.ledger_file import LedgerFile, damaged
from fed_fsad.privacy.lines import Charge, Header, Request, Split
from fed_fsad.privacy.records import Records, Unit


class Ledger:
    """An open ledger; while it is open nobody else can open it. Use it as a context manager."""

    def __init__(self, file: LedgerFile, header: Header, epsilon: float) -> None:
        self._file = file
        self._header = header
        self._budget = epsilon
        self._splits = {line.method: line.records for line in file.lines if isinstance(line, Split)}
        self._charges = [line for line in file.lines if isinstance(line, Charge)]

    @classmethod
    def open(cls, path: Path, *, unit: Unit, delta: float, epsilon: float) -> "Ledger":
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
                    f"the ledger {path} accounts for unit {header.unit} and delta {header.delta:g} but the policy says "
                    f"unit {unit} and delta {delta:g}: set the policy back",
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
    def unit(self) -> Unit:
        """Whom the guarantee protects."""
        return self._header.unit

    @property
    def delta(self) -> float:
        """δ, fixed when the ledger was begun."""
        return self._header.delta

    @property
    def epsilon(self) -> float:
        """ε spent so far, over everything in the ledger."""
        return gaussian_epsilon(math.sqrt(self._mu_squared()), self.delta)

    @property
    def charges(self) -> tuple[Charge, ...]:
        """All that was ever charged, oldest first."""
        return tuple(self._charges)

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

    def would_exceed(self, releases: int, sigma: float) -> bool:
        """Whether `releases` more releases with noise multiplier σ go beyond the budget."""
        return self._epsilon_after(mu_squared(releases, sigma)) > self._budget

    def require(self, releases: int, sigma: float) -> None:
        """Raise BudgetSpent when `would_exceed`."""
        if self.would_exceed(releases, sigma):
            raise self._spent()

    def noise_for(self, run: str, releases: int) -> float:
        """The σ with which `releases` releases of `run` fit into what all other runs left. Raises BudgetSpent.

        Charges of `run` itself do not enter: asked again after a restart, the answer is the same.
        """
        others = math.fsum(charge.mu_squared for charge in self._charges if charge.request.run != run)
        left = noise_for(self._budget, self.delta, 1) ** -2 - others
        if left <= 0:
            raise self._spent()
        return math.sqrt(releases / left)

    def charge(self, request: Request, release: str, *, releases: int, sigma: float, secure: bool) -> Charge:
        """Pay for bytes with SHA-256 `release` BEFORE they leave; on disk when this returns.

        The same bytes for the same request are paid for once. Raises BudgetSpent before anything is written.
        """
        cost = mu_squared(releases, sigma)
        for old in self._charges:
            if (old.request, old.release) == (request, release) and old.mu_squared >= cost:
                return old
        self.require(releases, sigma)
        charge = Charge(
            request=request,
            release=release,
            releases=releases,
            sigma=sigma,
            mu_squared=cost,
            epsilon_after=self._epsilon_after(cost),
            secure=secure,
            time=datetime.now(UTC),
        )
        self._file.append(charge)
        self._charges.append(charge)
        return charge

    def _mu_squared(self) -> float:
        return math.fsum(charge.mu_squared for charge in self._charges)

    def _epsilon_after(self, cost: float) -> float:
        return gaussian_epsilon(math.sqrt(self._mu_squared() + cost), self.delta)

    def _spent(self) -> BudgetSpent:
        return BudgetSpent(
            f"ε = {self.epsilon:.3g} of {self._budget:g} is spent and what was asked does not fit into the rest: "
            "only a larger epsilon in the policy, which weakens the guarantee, would allow it"
        )


def _check_sums(file: LedgerFile, delta: float) -> None:
    """Raise DataError at the first charge whose ε does not follow from the charges above it: a line is missing."""
    total = 0.0
    for number, line in enumerate(file.lines, start=1):
        if isinstance(line, Charge):
            total += line.mu_squared
            if not math.isclose(line.epsilon_after, gaussian_epsilon(math.sqrt(total), delta), rel_tol=1e-6):
                raise damaged(file.path, number)
        elif isinstance(line, Header) and number > 1:
            raise damaged(file.path, number)
