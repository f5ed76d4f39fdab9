"""Queries against a bank: a table, a picture of each, the supports, and a record of how it came about."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fed_fsad.data.samples import Sample
from fed_fsad.data.scan import Skipped
from fed_fsad.durable import replace
from fed_fsad.errors import DataError
from fed_fsad.evaluation.trials import check_finite
from fed_fsad.inference.banks import NamedBank
from fed_fsad.inference.images import Progress
from fed_fsad.inference.pictures import SIDE, TILE, Scale, finding_picture, map_picture, support_sheet
from fed_fsad.inference.tables import CheckedSupports, as_json, check_supports, predictions_csv, supports_csv
from fed_fsad.inference.trained import Trained
from fed_fsad.inference.verdicts import ABNORMAL, NORMAL, Judge, Verdict, judge_for
from fed_fsad.residents import rows_of
from fed_fsad.rundir import installed

CHUNK = 16
"""Queries scored at a time."""
Maps = NDArray[np.float32]
"""[N, S, S]."""


@dataclass(frozen=True)
class Question:
    """What is asked: queries, and those that could not be read, against a bank.

    supports: the bank's images where they are at hand, for the sheet. specificity: share of normal images that the
    threshold of a detector should leave in peace.
    """

    named: NamedBank
    supports: Sequence[Sample]
    queries: Sequence[Sample]
    unreadable: Sequence[Skipped]
    specificity: float


@dataclass(frozen=True)
class Outcome:
    """verdicts: by query. rule: where thresholds come from. scale: of the maps' colours. warnings: a sentence each."""

    verdicts: tuple[Verdict, ...]
    rule: str
    scale: Scale | None
    warnings: tuple[str, ...]


def predict(model: Trained, asked: Question, out: Path, progress: Progress) -> Outcome:
    """Score every query and write the folder `out`, which appears whole or not at all.

    Raises DataError when `out` holds something already, or when a score is not a finite number.
    """
    judge = judge_for(model.method, asked.named, asked.specificity)
    with _whole(out) as folder:
        with TemporaryFile(dir=folder) as spool:
            verdicts, maps = _score(model, judge, asked, spool, progress)
            scale = (float(maps.min()), float(maps.max())) if maps is not None else None
            pictures = _draw(asked, verdicts, maps, scale, folder, progress)
        checked = check_supports(model.method, asked.named)
        outcome = Outcome(
            tuple(verdicts), judge.rule, scale, (*checked.warnings, *judge.warnings, *_remarks(model, asked))
        )
        replace(folder / "predictions.csv", predictions_csv(asked.queries, verdicts, pictures))
        replace(folder / "supports.csv", supports_csv(asked.named, checked))
        replace(folder / "prediction.json", as_json(_record(model, asked, outcome)))
        if asked.supports:
            replace(folder / "supports.png", _sheet(asked.supports, checked))
    return outcome


def check_free(out: Path) -> None:
    """Raises DataError when there is something in the way of a new folder `out`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not empty; choose another --out or remove it")


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when all went well and is gone when not."""
    check_free(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        part.replace(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _score(
    model: Trained, judge: Judge, asked: Question, spool: IO[bytes], progress: Progress
) -> tuple[list[Verdict], Maps | None]:
    """Verdicts in the order of the queries; maps, of a method that has them, lie in the file `spool`."""
    method, bank, rows = model.method, asked.named.bank, rows_of(model.method)
    verdicts: list[Verdict] = []
    shape: tuple[int, ...] = ()
    for start in range(0, len(asked.queries), CHUNK):
        chunk = rows(asked.queries[start : start + CHUNK])
        scores = method.score(chunk.features, bank)
        check_finite(method.name, scores, chunk.samples)
        verdicts += judge.verdicts(chunk.features, scores)
        if scores.map is not None:
            shape = tuple(scores.map.shape[1:])
            spool.write(scores.map.float().cpu().numpy().tobytes())
        progress("scoring", len(verdicts), len(asked.queries))
    spool.flush()
    maps = np.memmap(spool, np.float32, "r", shape=(len(verdicts), *shape)) if shape else None
    return verdicts, maps


def _draw(
    asked: Question,
    verdicts: Sequence[Verdict],
    maps: Maps | None,
    scale: Scale | None,
    folder: Path,
    progress: Progress,
) -> list[str]:
    """One picture per query, all maps in one scale of colours; their paths inside the folder."""
    names = []
    for i, (sample, verdict) in enumerate(zip(asked.queries, verdicts, strict=True)):
        lines = (sample.source.name, *verdict.lines)
        image = sample.source.image(SIDE)
        picture = (
            finding_picture(image, lines)
            if maps is None or scale is None
            else map_picture(image, maps[i], scale, lines)
        )
        names.append(f"pictures/{i + 1:05}.png")
        replace(folder / names[-1], picture)
        progress("drawing", i + 1, len(verdicts))
    return names


def _remarks(model: Trained, asked: Question) -> list[str]:
    """What a reader should know of the model and of the queries."""
    found = []
    if parts := model.config.training[model.method.name].local_parts:
        found.append(f"{', '.join(parts)} of {model.method.name} stayed at the sites; here they are as at the start")
    known = dict(zip(asked.named.bank.ids, asked.named.names, strict=True))
    if same := [(x.source.name, known[x.id]) for x in asked.queries if x.id in known]:
        found.append(
            f"{len(same)} queries are supports too, e.g. {same[0][0]} is {same[0][1]}; their scores say little"
        )
    return found


def _sheet(supports: Sequence[Sample], checked: CheckedSupports) -> bytes:
    captions = [
        f"{i}  {'score ' + format(score, '.3g') if score is not None else ', '.join(sample.categories) or NORMAL}"
        for i, (sample, score) in enumerate(zip(supports, checked.scores, strict=True), start=1)
    ]
    return support_sheet([sample.source.image(TILE) for sample in supports], captions, checked.misfit)


def _record(model: Trained, asked: Question, outcome: Outcome) -> dict[str, Any]:
    """How the prediction came about: enough to make it again."""
    return {
        "made_with": installed(),
        "run": model.run,
        "round": model.round,
        "model": model.model,
        "task": asked.named.bank.task,
        "supports": len(asked.named.bank),
        "threshold": outcome.rule,
        "specificity": asked.specificity,
        "queries": len(asked.queries),
        "abnormal": sum(verdict.decision == ABNORMAL for verdict in outcome.verdicts),
        "colour_scale": outcome.scale,
        "warnings": outcome.warnings,
        "unreadable": [{"file": one.name, "reason": one.reason} for one in asked.unreadable],
    }
