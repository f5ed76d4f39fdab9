"""Who has what, and what a detector said of it: the array behind every category figure."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_fsad.evaluation.metrics import Block, auroc, average_precision, f1, macro
from fed_fsad.evaluation.trials import Trial


@dataclass(frozen=True)
class Table:
    """One trial as arrays: truth [N, M], scores [N, M] (NaN columns where the detector has none), unseen [M]."""

    names: tuple[str, ...]
    truth: NDArray[np.bool_]
    scores: NDArray[np.float64]
    unseen: NDArray[np.bool_]

    def labels(self, protocol: str) -> NDArray[np.int8]:
        """[C, N] of 1 (positive), 0 (negative) and -1 (left out): a row per category the protocol asks for."""
        normal = ~self.truth.any(axis=1)
        negatives = {"p1": normal, "p2": ~normal, "p3": np.ones_like(normal), "held_out": normal}[protocol]
        labels = np.where(self.truth, 1, np.where(negatives.reshape(-1, 1), 0, -1)).astype(np.int8)
        if protocol != "held_out":
            labels[self.truth[:, self.unseen].any(axis=1)] = -1
        return np.ascontiguousarray(labels[:, self.asked(protocol)].T)

    def asked(self, protocol: str) -> NDArray[np.bool_]:
        """[M], the categories the protocol asks for."""
        return self.unseen if protocol == "held_out" else ~self.unseen

    def areas(self, protocol: str) -> list[float]:
        """AUROC of each category the protocol asks for; NaN without positives or without negatives."""
        rows = zip(self.labels(protocol), self.scores[:, self.asked(protocol)].T, strict=True)
        return [auroc(row[row >= 0], values[row >= 0]) for row, values in rows]


def tabulate(trial: Trial, unseen: Collection[str]) -> Table:
    """The trial over every category that is scored or occurs, sorted by name."""
    scored = {name: i for i, name in enumerate(trial.scores.names)}
    names = tuple(sorted(scored.keys() | {name for sample in trial.samples for name in sample.categories}))
    given = trial.scores.categories
    absent = np.full(len(trial.samples), math.nan)
    columns = [
        absent if given is None or name not in scored else given[:, scored[name]].double().numpy() for name in names
    ]
    truth = [[name in sample.categories for name in names] for sample in trial.samples]
    return Table(
        names,
        np.array(truth, dtype=bool).reshape(len(trial.samples), len(names)),
        np.array(columns).reshape(len(names), len(trial.samples)).T,
        np.array([name in unseen for name in names], dtype=bool),
    )


def block(draws: Sequence[Table], protocol: str) -> Block:
    """A protocol's labels on one task and the scores of every draw."""
    return draws[0].labels(protocol), np.stack([table.scores[:, table.asked(protocol)].T for table in draws])


def multi_label(tables: Sequence[Table]) -> Mapping[str, float]:
    """P3 over the tables of several tasks, with "present" where the score is above 0, i.e. σ(s) > 0.5.

    map and macro_f1 average over categories; micro_f1 and hamming count every (image, category) once, exact_match every
    image once. A category without a score is never called present.
    """
    truths, calls, precisions, f1s = [], [], [], []
    for table in tables:
        rows = ~table.truth[:, table.unseen].any(axis=1)
        truth, scores = table.truth[rows][:, ~table.unseen], table.scores[rows][:, ~table.unseen]
        truths.append(truth)
        calls.append(scores > 0)
        precisions += [average_precision(a, s) for a, s in zip(truth.T, scores.T, strict=True)]
        f1s += [f1(a, s > 0) for a, s in zip(truth.T, scores.T, strict=True)]
    flat_truth, flat_calls = (np.concatenate([part.ravel() for part in parts]) for parts in (truths, calls))
    exact = [(truth == call).all(axis=1) for truth, call in zip(truths, calls, strict=True)]
    return {
        "map": macro(precisions)[0],
        "macro_f1": macro(f1s)[0],
        "micro_f1": f1(flat_truth, flat_calls),
        "hamming": _mean(flat_truth != flat_calls),
        "exact_match": _mean(np.concatenate(exact)),
    }


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else math.nan
