"""What the operating point does to the test images: counts, and rates with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from fed_fsad.evaluation.report.records import Details, ImageScore, OperatingPoint

NORMAL = "normal"


@dataclass(frozen=True)
class Rate:
    """`hits` of `of`, with the 95 % Wilson interval."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.hits / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval (Wilson 1927); None of nothing."""
        if not self.of:
            return None
        found = binomtest(self.hits, self.of).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class Operation:
    """One task at its operating point: what was called abnormal among abnormal and among normal test images."""

    task: str
    point: OperatingPoint
    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int

    @property
    def sensitivity(self) -> Rate:
        """Abnormal images called abnormal."""
        return Rate(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> Rate:
        """Normal images called normal."""
        return Rate(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def positive_predictive(self) -> Rate:
        """Images called abnormal that are."""
        return Rate(self.true_positives, self.true_positives + self.false_positives)

    @property
    def negative_predictive(self) -> Rate:
        """Images called normal that are."""
        return Rate(self.true_negatives, self.true_negatives + self.false_negatives)


def operations(details: Details) -> tuple[Operation, ...]:
    """Every task that has an operating point."""
    return tuple(
        _operation(details, task, details.operating[task]) for task in details.tasks if task in details.operating
    )


def _operation(details: Details, task: str, point: OperatingPoint) -> Operation:
    calls = [(bool(x.label), x.score > point.threshold) for x in details.scores if x.task == task]
    counts = [calls.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))]
    return Operation(task, point, *counts)


@dataclass(frozen=True)
class Calling:
    """One category of a task called present above its threshold: found among the images that show it, passed over
    among those that do not.
    """

    task: str
    category: str
    threshold: float
    found: Rate
    passed: Rate


def callings(details: Details) -> tuple[Calling, ...]:
    """Every category that has a threshold, task by task."""
    made = []
    for task, thresholds in sorted(details.thresholds.items()):
        for category, threshold in thresholds.items():
            calls = [
                (category in x.categories, x.category_scores[category] > threshold)
                for x in details.scores
                if x.task == task and category in x.category_scores
            ]
            shown, others = ([call for there, call in calls if there is want] for want in (True, False))
            found, passed = Rate(sum(shown), len(shown)), Rate(len(others) - sum(others), len(others))
            made.append(Calling(task, category, threshold, found, passed))
    return tuple(made)


@dataclass(frozen=True)
class Confusion:
    """names: normal, then categories; counts[i][j]: test images that show the i-th and were called the j-th; images:
    how many show it. An image of several categories counts in each of their rows.
    """

    task: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    images: tuple[int, ...]


def confusions(details: Details) -> tuple[Confusion, ...]:
    """Confusion between categories: below the operating point an image is called normal, else its highest category."""
    found = []
    for task, point in sorted(details.operating.items()):
        scores = [x for x in details.scores if x.task == task and x.category_scores]
        if scores:
            found.append(_confusion(task, scores, point.threshold))
    return tuple(found)


def _confusion(task: str, scores: Sequence[ImageScore], threshold: float) -> Confusion:
    known = sorted({name for x in scores for name in (*x.category_scores, *x.categories)})
    names = (NORMAL, *known)
    shown = [set(x.categories or ((NORMAL,) if not x.label else ())) for x in scores]
    called = [_called(x.category_scores) if x.score > threshold else NORMAL for x in scores]
    counts = tuple(
        tuple(
            sum(row in truth and call == column for truth, call in zip(shown, called, strict=True)) for column in names
        )
        for row in names
    )
    return Confusion(task, names, counts, tuple(map(sum, counts)))


def _called(scores: Mapping[str, float]) -> str:
    return max(sorted(scores), key=lambda name: scores[name])
