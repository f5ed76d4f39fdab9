"""What a batch ends with: its table on the disk, and the names of the runs that failed."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fed_fsad.durable import replace
from fed_fsad.errors import FederationError
from fed_fsad.evaluation.report.words import EXTRA, FIGURES

NAMED = 5
TITLES = {
    "image_auroc": "image AUROC",
    "average_precision": "average precision",
    "sensitivity_95": "sensitivity at 95 % specificity",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupro": "AUPRO (up to 30 % false positives)",
    "pixel_dice": "best-threshold Dice",
    "context_only": "Federated, context alone (ablation)",
    "no_signs": "Federated, class names for signs (ablation)",
    **{key: FIGURES[key] for key in ("p1", "p2", "p3", "held_out")},
    **EXTRA,
}
"""What a table calls a figure, or an ablation."""


def write_csv(path: Path, heading: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """A table; None is an empty cell."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(heading)
    table.writerows(lines)
    replace(path, text.getvalue().encode())


def check_failed(failed: Mapping[str, str], total: int, remedy: str) -> None:
    """Raises FederationError that names the runs that failed, if any has."""
    if failed:
        named = "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:NAMED])
        more = f" and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise FederationError(f"{len(failed)} of {total} runs failed ({named}{more}); {remedy}")
