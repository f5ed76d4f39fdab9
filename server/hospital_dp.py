"""Hospital-level privacy at the server: updates are clipped and summed, and noise is on the sum before anybody sees it.

What enters the model is paid for first, in a ledger of the run's own (`RUN/privacy`), so that neither a kill nor a
resumed run ever draws noise that is not counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fed_fsad import __version__
from fed_fsad.config import Config
from fed_fsad.errors import CheckpointError
from fed_fsad.messages import Reply, Tensors
from fed_fsad.privacy.account import LEDGER
from fed_fsad.privacy.accounting import noise_for
from fed_fsad.privacy.admission import rho
from fed_fsad.privacy.guarantees import hospital_claim
from fed_fsad.privacy.hospital import clip_update, flat, next_clip_norm, noise_shares, noisy_mean, noisy_share
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from fed_fsad.privacy.noise import InsecureSeededNoise, Noise, SecureNoise
from fed_fsad.privacy.release import Outbox, release, request_key
from fed_fsad.privacy.terms import HospitalTerms
from fed_fsad.rundir import Event, RunDir
from fed_fsad.seeds import derive

SHARE = "|share"
"""Under this name the noisy share of short updates is kept beside the tensors, which are called METHOD|NAME."""


class HospitalPrivacy:
    """The mechanism of one run: one release per round, of all methods and parts jointly.

    Jointly, because taking part is one thing: one C, one noise, one charge, and no budget to share out between methods.
    """

    def __init__(self, config: Config, terms: HospitalTerms, run: RunDir) -> None:
        self._terms = terms
        self._seed, self._insecure = config.seed, config.privacy.insecure_noise_seed
        self._rounds = config.federation.rounds
        self._cohort = config.federation.participants or len(config.trainers)
        self._run = run
        self._clip_norm = terms.clip_norm
        planned = noise_for(terms.epsilon, terms.delta, self._rounds)
        self._sigma = terms.noise_multiplier or planned

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, JSON-able."""
        return {"clip_norm": self._clip_norm}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state()` gave. Raises CheckpointError."""
        try:
            self._clip_norm = float(state["clip_norm"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError("latest.json: the clip norm cannot be read; restore the file from a copy") from error

    def warning(self, current: Mapping[str, Tensors]) -> str | None:
        """One sentence when the noise drowns what would be trained, or None. current: the travelling tensors."""
        dims = sum(tensor.numel() for tensor in flat(current).values())
        found = rho(self._terms.epsilon, self._terms.delta, dims, self._cohort)
        if found <= 1:
            return None
        return (
            f"hospital-level noise is {found:.2g} times as long as the longest mean update ({dims} scalars, "
            f"{self._cohort} hospitals): train smaller parts, invite more hospitals, or expect little"
        )

    def spent(self, round_: int) -> str | None:
        """Why `round_` cannot be paid for, in one sentence, or None."""
        with self._ledger() as ledger:
            if any(charge.request.round == round_ for charge in ledger.charges):
                return None
            if not ledger.would_exceed(1, self._sigma):
                return None
            return (
                f"the hospital-level budget of ε = {self._terms.epsilon:g} is spent: the run ends with the model of "
                f"round {round_ - 1} at ε = {ledger.epsilon:.3g}"
            )

    def hide(self, round_: int, current: Mapping[str, Tensors], replies: Sequence[Reply]) -> tuple[Reply, Event]:
        """The replies as one reply that hides each of them, and the line for metrics.jsonl.

        current: the travelling tensors by method. Raises BudgetSpent and whatever the ledger raises.
        """
        total, norms = clipped_sum(current, replies, self._clip_norm)
        return self.hide_sum(round_, current, total, norms)

    def hide_sum(
        self, round_: int, current: Mapping[str, Tensors], total: Tensors, norms: Mapping[str, float]
    ) -> tuple[Reply, Event]:
        """As `hide`, of a sum of updates that were clipped already, by METHOD|NAME. norms: as in `noisy_share`."""
        used, noise = self._clip_norm, self._noise(round_)
        # A tensor that nobody moved gets noise like all others: leaving it out would tell who took part.
        whole = {name: total.get(name, torch.zeros_like(at, dtype=torch.float64)) for name, at in flat(current).items()}

        def compute() -> dict[str, Tensor]:
            return self._drawn(whole, norms, noise)

        with self._ledger() as ledger:
            released = release(
                ledger,
                Outbox(self._folder / "outbox"),
                Request(run=self._run.run_id, round=round_, method="all", key=self._key(current)),
                releases=1,
                sigma=self._sigma,
                secure=noise.secure,
                compute=compute,
            )
            line = self._line(round_, ledger, used)
        if SHARE in released:
            self._clip_norm = next_clip_norm(used, float(released[SHARE]), self._terms.target_quantile)
        return Reply("all", __version__, tensors=_moved(current, released)), line

    def _drawn(self, total: Tensors, norms: Mapping[str, float], noise: Noise) -> dict[str, Tensor]:
        """The noisy mean update, and where clipping adapts the noisy share: together they cost one release with σ."""
        adaptive = self._terms.clipping == "adaptive"
        shares, clip, cohort = noise_shares(self._sigma, adaptive), self._clip_norm, self._cohort
        mean = noisy_mean(total, clip_norm=clip, noise_multiplier=shares.update, cohort=cohort, noise=noise)
        if adaptive:
            share = noisy_share(norms, clip_norm=clip, count_noise=shares.count, cohort=cohort, noise=noise)
            mean[SHARE] = torch.tensor(share, dtype=torch.float64)
        return mean

    def _noise(self, round_: int) -> Noise:
        if self._insecure is None:
            return SecureNoise()
        return InsecureSeededNoise(derive(self._insecure, "noise", "hospital level", round_))

    def _key(self, current: Mapping[str, Tensors]) -> str:
        asked = {"terms": self._terms.model_dump(mode="json"), "cohort": self._cohort, "clip_norm": self._clip_norm}
        return request_key(flat(current), asked)

    def _line(self, round_: int, ledger: Ledger, clip_norm: float) -> Event:
        return {
            "kind": "hospital_privacy",
            "round": round_,
            "epsilon": ledger.epsilon,
            "budget": self._terms.epsilon,
            "delta": ledger.delta,
            "sigma": self._sigma,
            "clip_norm": clip_norm,
            "cohort": self._cohort,
            "claim": hospital_claim(ledger, self._terms.epsilon),
        }

    @property
    def _folder(self) -> Path:
        return self._run.path / "privacy"

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        terms = self._terms
        with Ledger.open(self._folder / LEDGER, unit="hospital", delta=terms.delta, epsilon=terms.epsilon) as ledger:
            yield ledger


def clipped_sum(
    current: Mapping[str, Tensors], replies: Sequence[Reply], clip_norm: float
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Σ over sites of what each moved, clipped over all it sent, float64 by METHOD|NAME; and the lengths by site.

    What a site did not send counts as not moved: it still shares one C. Sites enter by name.
    """
    start = {name: tensor.detach().double().cpu() for name, tensor in flat(current).items()}
    total = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    norms: dict[str, float] = {}
    for reply in sorted(replies, key=lambda reply: reply.site):
        moved = {name: tensor.double().cpu() - start[name] for name, tensor in flat(reply.tensors).items()}
        clipped, norms[reply.site] = clip_update(moved, clip_norm)
        for name, update in clipped.items():
            total[name] += update
    return total, norms


def _moved(current: Mapping[str, Tensors], released: Tensors) -> dict[str, dict[str, Tensor]]:
    """The current tensors plus the mean update, rounded to their own dtype last."""
    return {
        method: {
            name: (tensor.double() + released[f"{method}|{name}"]).to(tensor.dtype) for name, tensor in own.items()
        }
        for method, own in current.items()
    }
