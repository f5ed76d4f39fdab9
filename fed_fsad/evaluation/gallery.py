"""Details on disk: one JSON file and the gallery's pictures."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from scipy import ndimage

from fed_fsad.data.samples import Image, Mask
from fed_fsad.durable import replace
from fed_fsad.evaluation.results import Details, GalleryItem, defined

Picture = NDArray[np.uint8]
"""[S, S, 3]."""
CONTOUR = np.array([0.0, 1.0, 0.4])
HEAT = matplotlib.colormaps["inferno"]
HEAT_WEIGHT = 0.55


def save_details(details: Details, folder: Path) -> None:
    """Write folder/details.json and folder/gallery/*.png; a reader never meets a half-written state.

    Pictures are named by their content and details.json is replaced last, so an interrupted call leaves the earlier
    details whole. Maps of one task share one colour scale.
    """
    gallery = folder / "gallery"
    gallery.mkdir(parents=True, exist_ok=True)
    scales = _scales(details.gallery)
    items = [_save_item(item, scales.get(item.score.task), gallery) for item in details.gallery]
    text = json.dumps(
        {
            "roc": {name: asdict(curve) for name, curve in details.roc.items()},
            "precision_recall": {name: asdict(curve) for name, curve in details.precision_recall.items()},
            "operating": {task: asdict(point) for task, point in details.operating.items()},
            "scores": [asdict(score) for score in details.scores],
            "gallery": items,
            "signs": {
                task: {
                    category: [
                        {"sign": one.sign, "reliability": defined(one.reliability), "kept": one.kept} for one in signs
                    ]
                    for category, signs in categories.items()
                }
                for task, categories in details.signs.items()
            },
            "thresholds": details.thresholds,
        },
        allow_nan=False,
    )
    replace(folder / "details.json", text.encode())
    used = {item[key] for item in items for key in ("image", "mask", "map")}
    for picture in gallery.glob("*.png"):
        if f"gallery/{picture.name}" not in used:
            picture.unlink()


def save_resamples(resamples: Sequence[float] | None, folder: Path, detector: str) -> None:
    """Write folder/resamples/`detector`.json, the headline on every resample: two detectors can be subtracted."""
    if resamples is not None:
        (folder / "resamples").mkdir(parents=True, exist_ok=True)
        text = json.dumps([round(value, 6) for value in resamples], allow_nan=False)
        replace(folder / "resamples" / f"{detector}.json", text.encode())


def outline(image: Image, mask: Mask) -> Picture:
    """The image with the inner rim of the mask drawn on it."""
    rim = mask & ~ndimage.binary_erosion(mask)
    picture = image.transpose(1, 2, 0).astype(np.float64)
    picture[rim] = CONTOUR
    return _bytes(picture)


def overlay(image: Image, heat: NDArray[np.float32], low: float, high: float) -> Picture:
    """The image under its map [S, S] in colours; `low` is the darkest, `high` the brightest."""
    colours = HEAT(np.interp(heat, (low, high), (0, 1)))[..., :3]
    return _bytes((1 - HEAT_WEIGHT) * image.transpose(1, 2, 0) + HEAT_WEIGHT * colours)


def _scales(items: tuple[GalleryItem, ...]) -> dict[str, tuple[float, float]]:
    """Lowest and highest map value of every task."""
    scales: dict[str, tuple[float, float]] = {}
    for item in items:
        if item.map is not None:
            low, high = scales.get(item.score.task, (np.inf, -np.inf))
            scales[item.score.task] = (min(low, float(item.map.min())), max(high, float(item.map.max())))
    return scales


def _save_item(item: GalleryItem, scale: tuple[float, float] | None, gallery: Path) -> dict[str, Any]:
    pictures = {
        "image": _bytes(item.image.transpose(1, 2, 0)),
        "mask": outline(item.image, item.mask) if item.mask is not None and item.mask.any() else None,
        "map": overlay(item.image, item.map, *scale) if item.map is not None and scale is not None else None,
    }
    files = {key: None if picture is None else _save_picture(picture, gallery) for key, picture in pictures.items()}
    return {**files, **asdict(item.score), "kind": item.kind, "evidence": [asdict(one) for one in item.evidence]}


def _save_picture(picture: Picture, gallery: Path) -> str:
    content = io.BytesIO()
    PillowImage.fromarray(picture).save(content, format="PNG")
    name = hashlib.sha256(content.getvalue()).hexdigest()[:20] + ".png"
    replace(gallery / name, content.getvalue())
    return f"gallery/{name}"


def _bytes(picture: NDArray[Any]) -> Picture:
    """[S, S, 3] in [0, 1] to bytes."""
    return np.asarray(np.round(np.clip(picture, 0, 1) * 255), dtype=np.uint8)
