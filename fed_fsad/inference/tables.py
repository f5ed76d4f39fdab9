"""A prediction as CSV and JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fed_fsad.data.samples import Sample
from fed_fsad.inference.banks import NamedBank
from fed_fsad.inference.verdicts import NORMAL, Verdict, number
from fed_fsad.methods.method import Method
from fed_fsad.methods.threshold import misfits, warnings


@dataclass(frozen=True)
class CheckedSupports:
    """scores: of every support against the others, None where there is none. misfit: whether it does not belong.

    warnings: one sentence per misfit.
    """

    scores: tuple[float | None, ...]
    misfit: tuple[bool, ...]
    warnings: tuple[str, ...]


def check_supports(method: Method, named: NamedBank) -> CheckedSupports:
    """Which normal supports are unlike the other normal ones, by their leave-one-out scores."""
    places = [i for i, categories in enumerate(named.bank.categories) if not categories]
    found = method.support_scores(named.bank)
    if found is None:
        return CheckedSupports((None,) * len(named.names), (False,) * len(named.names), ())
    scores = dict(zip(places, found.tolist(), strict=True))
    odd = {places[i] for i in misfits(found)}
    every = range(len(named.names))
    return CheckedSupports(
        tuple(scores.get(i) for i in every),
        tuple(i in odd for i in every),
        warnings(method, named.bank, [named.names[i] for i in places]),
    )


def predictions_csv(queries: Sequence[Sample], verdicts: Sequence[Verdict], pictures: Sequence[str]) -> bytes:
    """One row per query."""
    return _csv(
        [
            {
                "file": sample.source.name,
                "score": number(verdict.score),
                "decision": verdict.decision,
                **verdict.cells,
                "picture": picture,
            }
            for sample, verdict, picture in zip(queries, verdicts, pictures, strict=True)
        ]
    )


def supports_csv(named: NamedBank, checked: CheckedSupports) -> bytes:
    """One row per support, numbered as the weights in predictions.csv are."""
    return _csv(
        [
            {
                "number": str(i + 1),
                "file": name,
                "sha256": named.bank.ids[i],
                "classes": ";".join(named.bank.categories[i]) or NORMAL,
                "score": "" if score is None else number(score),
                "misfit": "yes" if odd else "no",
            }
            for i, (name, score, odd) in enumerate(zip(named.names, checked.scores, checked.misfit, strict=True))
        ]
    )


def as_json(content: Mapping[str, Any]) -> bytes:
    """Indented, in UTF-8."""
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _csv(rows: Sequence[Mapping[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()
