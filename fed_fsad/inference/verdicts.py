"""What is said of one query: scores, thresholds, decisions, and why, as cells of a table and lines under a picture."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from fed_fsad.data.features import Features
from fed_fsad.evaluation.details import ReadsSigns, TellsProbabilities
from fed_fsad.inference.banks import NamedBank
from fed_fsad.methods.method import Method, Scores, SupportBank
from fed_fsad.methods.threshold import Threshold, threshold

NORMAL, ABNORMAL, UNDECIDED = "normal", "abnormal", ""
LOUDEST = 3
"""Signs of a category that a picture names; the table names all that counted."""


@runtime_checkable
class WeighsSupports(Protocol):
    """A method that can say how much each support counted."""

    def support_weights(self, features: Features, bank: SupportBank) -> Tensor:
        """[B, K], every row sums to 1."""


@dataclass(frozen=True)
class Verdict:
    """score: of the image. decision: normal, abnormal, or "" without a threshold. cells: further columns of the table.

    lines: what a picture says of it.
    """

    score: float
    decision: str
    cells: Mapping[str, str]
    lines: tuple[str, ...]


class Judge(ABC):
    """Reads a method's scores against one bank.

    rule: where its thresholds come from. warnings: what a reader of its decisions should know, one sentence each.
    """

    rule: str
    warnings: tuple[str, ...] = ()

    @abstractmethod
    def verdicts(self, features: Features, scores: Scores) -> list[Verdict]:
        """One verdict per query."""


class DetectorJudge(Judge):
    """One threshold from the supports' leave-one-out scores; weights of the supports where the method has them."""

    def __init__(self, method: Method, named: NamedBank, specificity: float) -> None:
        self._method = method
        self._bank = named.bank
        self.threshold = support_threshold(method, named.bank, specificity)
        self.rule = _rule(self.threshold)

    def verdicts(self, features: Features, scores: Scores) -> list[Verdict]:
        """With the columns threshold and, per support in the bank's order, weight_1 to weight_K."""
        method, limit = self._method, self.threshold
        rows: list[list[float]] = [[] for _ in scores.image]
        if isinstance(method, WeighsSupports):
            rows = method.support_weights(features, self._bank).tolist()
        found = []
        for score, weights in zip(scores.image.tolist(), rows, strict=True):
            decision = UNDECIDED if limit is None else ABNORMAL if score > limit.value else NORMAL
            cells = {"threshold": "" if limit is None else number(limit.value)}
            cells |= {f"weight_{i}": number(weight) for i, weight in enumerate(weights, start=1)}
            said = "no threshold" if limit is None else f"threshold {limit.value:.3g}: {decision}"
            found.append(Verdict(score, decision, cells, (f"score {score:.3g}, {said}",)))
        return found


class CategoryJudge(Judge):
    """A threshold, a probability and the signs that spoke, per category; abnormal is what shows any of them."""

    def __init__(self, method: Method, named: NamedBank) -> None:
        self._method = method
        self._bank = named.bank
        self._limits = method.thresholds(named.bank).tolist() if isinstance(method, TellsProbabilities) else None
        self.rule = (
            "per category, where it is as likely present as not, by the leave-one-out scores of the supports"
            if self._limits is not None
            else "none: the method gives no thresholds"
        )
        if isinstance(method, ReadsSigns):
            shown = {name for categories in named.bank.categories for name in categories}
            if lacking := [name for name in method.selected_signs(named.bank) if name not in {NORMAL, *shown}]:
                self.warnings = (f"no support shows {', '.join(lacking)}; there the signs speak alone, add a support",)

    def verdicts(self, features: Features, scores: Scores) -> list[Verdict]:
        """With the columns `NAME: score`, probability, threshold, decision and signs of every category."""
        method, bank = self._method, self._bank
        if scores.categories is None:
            raise ValueError(f"{method.name} gave no category scores")
        chances = method.probabilities(scores, bank).tolist() if isinstance(method, TellsProbabilities) else None
        spoken: Sequence[Mapping[str, Mapping[str, float]]] = [{} for _ in scores.image]
        if isinstance(method, ReadsSigns):
            spoken = method.sign_evidence(features, bank)
        rows = scores.categories.tolist()
        return [
            self._verdict(
                dict(zip(scores.names, row, strict=True)),
                dict(zip(scores.names, chances[i], strict=True)) if chances is not None else {},
                spoken[i],
                float(scores.image[i]),
            )
            for i, row in enumerate(rows)
        ]

    def _verdict(
        self,
        scores: Mapping[str, float],
        chances: Mapping[str, float],
        spoken: Mapping[str, Mapping[str, float]],
        image: float,
    ) -> Verdict:
        limits = dict(zip(scores, self._limits, strict=True)) if self._limits is not None else {}
        present = [name for name, score in scores.items() if name in limits and score > limits[name]]
        cells: dict[str, str] = {}
        for name, score in scores.items():
            own = {
                "score": number(score),
                "probability": number(chances[name]) if name in chances else "",
                "threshold": number(limits[name]) if name in limits else "",
                "decision": ("present" if name in present else "absent") if name in limits else "",
                "signs": "; ".join(f"{sign} ({gave:+.2f})" for sign, gave in spoken.get(name, {}).items()),
            }
            cells |= {f"{name}: {key}": value for key, value in own.items()}
        decision = UNDECIDED if not limits else ABNORMAL if present else NORMAL
        return Verdict(image, decision, cells, _lines(scores, chances, spoken, present))


def judge_for(method: Method, named: NamedBank, specificity: float) -> DetectorJudge | CategoryJudge:
    """The judge of a method's protocol."""
    return (
        CategoryJudge(method, named) if method.protocol == "categories" else DetectorJudge(method, named, specificity)
    )


def support_threshold(method: Method, bank: SupportBank, specificity: float) -> Threshold | None:
    """The threshold that the supports give, or None when the method or a single support gives none."""
    scores = method.support_scores(bank)
    return None if scores is None or len(scores) < 2 else threshold(scores, specificity)


def number(value: float) -> str:
    """Eight digits, which tell any two float32 scores apart."""
    return f"{value:.8g}"


def _rule(limit: Threshold | None) -> str:
    if limit is None:
        return "none: a threshold needs the leave-one-out scores of at least two supports"
    how = {
        "conformal": "a conformal quantile of their leave-one-out scores",
        "t_bound": "mean + t sd √(1 + 1/K) of their leave-one-out scores, right for normally distributed ones",
    }[limit.rule]
    return f"from {limit.supports} supports, for a specificity of {limit.specificity:g}: {how}"


def _lines(
    scores: Mapping[str, float],
    chances: Mapping[str, float],
    spoken: Mapping[str, Mapping[str, float]],
    present: Sequence[str],
) -> tuple[str, ...]:
    lines = []
    for name in sorted(scores, key=lambda name: -scores[name]):
        chance = f", probability {chances[name]:.2f}" if name in chances else ""
        lines.append(f"{name}{' PRESENT' if name in present else ''}: score {scores[name]:+.2f}{chance}")
        lines += [f"    {gave:+.2f} {sign}" for sign, gave in list(spoken.get(name, {}).items())[:LOUDEST]]
    return tuple(lines)
