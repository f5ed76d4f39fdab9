"""Who was dealt what: partition.csv of a simulation, counted and drawn."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fed_fsad.errors import DataError
from fed_fsad.evaluation.report import svg
from fed_fsad.evaluation.report.sheet import Value, sheet
from fed_fsad.evaluation.report.svg import BAD, Chart, Key, colour
from fed_fsad.evaluation.report.words import plain

LARGEST = 150.0
"""Area in square points of the largest bubble."""
FEW = 12
"""Hospitals up to which half the page's width will do."""
MOST_NAMES = 24
"""Hospitals whose names fit under the picture."""


@dataclass(frozen=True)
class Share:
    """How many train images of one class a hospital was dealt. wrong: those of them with a wrong label."""

    hospital: str
    task: str
    label: str
    images: int
    wrong: int


def read_shares(path: Path) -> tuple[Share, ...]:
    """The train images of partition.csv, counted by hospital, task and given label; empty without the file.

    Raises DataError when it is damaged.
    """
    if not path.is_file():
        return ()
    images: Counter[tuple[str, str, str]] = Counter()
    wrong: Counter[tuple[str, str, str]] = Counter()
    try:
        for row in csv.DictReader(path.read_text("utf-8").splitlines()):
            if row["use"] == "train":
                about = row["hospital"], row["task"], row["label"]
                images[about] += 1
                wrong[about] += row["label"] != row["true_label"]
    except (ValueError, KeyError, csv.Error) as error:
        raise DataError(f"{path} is damaged; resume or repeat the run") from error
    return tuple(Share(*about, images[about], wrong[about]) for about in sorted(images))


def crowded(shares: Sequence[Share]) -> bool:
    """Whether the picture takes the whole width of the page."""
    return len({share.hospital for share in shares}) > FEW


def picture(shares: Sequence[Share], name: str) -> Chart | None:
    """A bubble per hospital and class, its area the number of images; a ring marks wrong labels."""
    if not shares:
        return None
    hospitals = sorted({share.hospital for share in shares})
    classes = sorted({(share.task, share.label) for share in shares}, reverse=True)
    most = max(share.images for share in shares)
    figure, axes = svg.canvas(850.0 if crowded(shares) else 400.0, 60 + 14.0 * len(classes))
    for chosen, counts in ((shares, False), ([share for share in shares if share.wrong], True)):
        axes.scatter(
            [hospitals.index(share.hospital) for share in chosen],
            [classes.index((share.task, share.label)) for share in chosen],
            s=[LARGEST * (share.wrong if counts else share.images) / most for share in chosen],
            facecolors="none" if counts else colour(0),
            edgecolors=BAD if counts else "none",
            linewidths=1.6,
            alpha=1 if counts else 0.75,
            clip_on=False,
        )
    axes.set_yticks(range(len(classes)), [_class(*one) for one in classes], fontsize=9)
    named = hospitals if len(hospitals) <= MOST_NAMES else []
    axes.set_xticks(range(len(named)), named, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_xlim(-0.6, len(hospitals) - 0.4)
    axes.set_ylim(-0.7, len(classes) - 0.3)
    title = "How the train images were dealt out"
    rows: list[tuple[Value, ...]] = [(x.hospital, x.task, x.label or "normal", x.images, x.wrong) for x in shares]
    numbers = sheet(("hospital", "task", "class", "train images", "of those with a wrong label"), rows)
    keys = [Key("images", "series-0", "●")]
    if any(share.wrong for share in shares):
        keys.append(Key("wrong labels among them", "bad", "○"))
    return Chart(name, title, svg.inline(figure, name, title), numbers, tuple(keys), f"largest bubble: {most} images")


def _class(task: str, label: str) -> str:
    return f"{plain(task)}: {plain(label or 'normal').replace(';', ' + ')}"
