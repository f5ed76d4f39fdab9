"""What thresholds and warnings from K supports alone are worth: measured on validation organs, with the default score.

    python -m benchmarks.d24fad_thresholds

First table: the share of further normal images above the threshold, against the share asked for, by rule. Second: how
often an abnormal image among K - 1 normal supports is warned of, and how often a clean set gives a warning.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.d24fad_scores import POOL, SEEDS, TEST
from benchmarks.d24fad_settings import ORGANS_USED
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.bed import draw_support
from fed_fsad.methods.d24fad import Settings, build
from fed_fsad.methods.d24fad.detector import D24FAD
from fed_fsad.methods.method import SupportBank
from fed_fsad.methods.threshold import misfits, threshold
from fed_fsad.residents import rows_of
from fed_fsad.seeds import derive

SHOTS, DRAWS = (2, 4, 8, 16), 2
ASKED = (0.2, 0.1, 0.05)
"""False-positive rates."""
RULES: dict[str, Callable[[Tensor, float], float]] = {
    "ours (conformal or prediction bound)": lambda scores, asked: threshold(scores, 1 - asked).value,
    "prediction bound of the logarithms": lambda scores, asked: math.exp(_bound(scores.log(), asked)),
    "highest support": lambda scores, asked: float(scores.max()),
    "mean + z sd": lambda scores, asked: float(scores.mean() + _z(asked) * scores.std()),
}


def _bound(scores: Tensor, asked: float) -> float:
    return threshold(scores, 1 - asked).value


def _z(asked: float) -> float:
    return float(torch.special.ndtri(torch.tensor(1 - asked)))


class Trial:
    """One support set of an organ: leave-one-out scores of K supports, scores of further images of both labels."""

    def __init__(self, method: D24FAD, organ: str, seed: int, shots: int, draw: int) -> None:
        self._method, self._organ, self._rows = method, organ, rows_of(method)
        pool = phantom_set(organ, POOL, 0, 0, derive(seed, "scores pool"))
        test = phantom_set(organ, TEST, TEST, 0, derive(seed, "scores"))
        self._support = draw_support(pool, organ, shots, draw, seed, per_category=False)
        self.bank = self._fit(self._support)
        self.own = _given(method.support_scores(self.bank))
        self._test = test
        self._stranger = (seed + draw) % TEST

    def normals(self) -> Tensor:
        """Scores of further normal images."""
        return self._method.score(self._rows([x for x in self._test if x.is_normal]).features, self.bank).image

    def contaminated(self) -> Tensor:
        """Leave-one-out scores after the last support has given its place to an abnormal image."""
        abnormal = [x for x in self._test if not x.is_normal][self._stranger]
        bank = self._fit([*self._support[:-1], replace(abnormal, categories=())])
        return _given(self._method.support_scores(bank))

    def _fit(self, support: list[Sample]) -> SupportBank:
        return self._method.fit_support(self._rows(support), self._organ)


def _given(scores: Tensor | None) -> Tensor:
    assert scores is not None
    return scores


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    method = build(Settings(), 0)
    trials = {
        shots: [
            Trial(method, organ, seed, shots, draw) for organ in ORGANS_USED for seed in SEEDS for draw in range(DRAWS)
        ]
        for shots in SHOTS
    }
    for line in (*_thresholds(trials), "", *_contamination(trials)):
        print(line, flush=True)


def _thresholds(trials: dict[int, list[Trial]]) -> Iterator[str]:
    yield "| rule | asked | " + " | ".join(f"K = {shots}" for shots in trials) + " |"
    yield "|---" * (len(trials) + 2) + "|"
    normals = {shots: [trial.normals() for trial in made] for shots, made in trials.items()}
    for name, rule in RULES.items():
        for asked in ASKED:
            rates = [
                fmean(
                    float((scores > rule(trial.own, asked)).double().mean())
                    for trial, scores in zip(made, normals[shots], strict=True)
                )
                for shots, made in trials.items()
            ]
            yield f"| {name} | {asked:g} | " + " | ".join(f"{rate:.3f}" for rate in rates) + " |"


def _contamination(trials: dict[int, list[Trial]]) -> Iterator[str]:
    yield "| K | abnormal support warned of | it scores highest of all | by chance | clean sets with a warning |"
    yield "|---|---|---|---|---|"
    for shots, made in trials.items():
        if shots < 3:
            continue
        dirty = [trial.contaminated() for trial in made]
        found = fmean(shots - 1 in misfits(scores) for scores in dirty)
        highest = fmean(int(scores.argmax()) == shots - 1 for scores in dirty)
        alarms = fmean(bool(misfits(trial.own)) for trial in made)
        yield f"| {shots} | {found:.2f} | {highest:.2f} | {1 / shots:.2f} | {alarms:.2f} |"


if __name__ == "__main__":
    main()
