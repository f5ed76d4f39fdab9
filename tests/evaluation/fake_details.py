"""evaluation/METHOD/ of an invented run: drawn images, scores, and the curves and thresholds that follow from them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

NASTY = "<script>alert(1)</script>"
THRESHOLD = {"d24fad": 0.58, "sdmad": 0.0}
NORMALS, ABNORMALS = 48, 48
Floats = NDArray[np.float64]


def write_details(folder: Path, method: str, random: np.random.Generator) -> None:
    """details.json and its gallery."""
    (folder / "gallery").mkdir(parents=True)
    labels = np.repeat((False, True), (NORMALS, ABNORMALS))
    kinds = np.where(labels, random.choice(["ring_mass", "oedema"], labels.size), "")
    if method == "d24fad":
        drawn = {k: random.normal(labels * gap, 1.0) * 0.1 + 0.5 for k, gap in (("2", 1.2), ("4", 1.5), ("8", 1.8))}
        categories: dict[str, Floats] = {}
        image = drawn["4"]
    else:
        categories = {k: random.normal(2.2 * (kinds == k) - 0.9, 0.9) for k in ("oedema", "ring_mass")}
        image = np.max(list(categories.values()), axis=0)
        drawn = {"binary": image, **categories}
    scores = [
        {
            "name": f"brain_{i:03}.png",
            "task": "brain_mri",
            "label": int(y),
            "categories": [str(k)] if k else [],
            "score": float(image[i]),
            "category_scores": {name: float(values[i]) for name, values in categories.items()},
        }
        for i, (y, k) in enumerate(zip(labels, kinds, strict=True))
    ]
    asked = {name: labels if name in ("2", "4", "8", "binary") else kinds == name for name in drawn}
    ranked = NORMALS + np.argsort(image[NORMALS:])
    shown = {int(ranked[-1]): "best", int(ranked[ABNORMALS // 2]): "median", int(ranked[0]): "worst"}
    shown[int(np.argmax(image[:NORMALS]))] = "false alarm"
    operating = {
        "curve": "4" if method == "d24fad" else "binary",
        "threshold": THRESHOLD[method],
        "specificity": 12 / 13,
        "normals": 12,
    }
    details = {
        "roc": {name: _roc(asked[name], values, name) for name, values in drawn.items()},
        "precision_recall": {name: _precise(asked[name], values, name) for name, values in drawn.items()},
        "operating": {"brain_mri": operating},
        "scores": scores,
        "gallery": [_case(folder, scores[i], kind, random) for i, kind in shown.items()],
        "signs": _signs() if method == "sdmad" else {},
        "thresholds": {"brain_mri": {"oedema": -0.2, "ring_mass": 0.3}} if method == "sdmad" else {},
    }
    (folder / "details.json").write_text(json.dumps(details, indent=1))


def write_resamples(folder: Path, figures: dict[str, float], random: np.random.Generator) -> None:
    """The headline of every detector on the same 200 resamples: the resample's own luck, and a little of its own."""
    (folder / "resamples").mkdir(parents=True)
    luck = random.normal(0, 0.024, 200)
    for name, value in figures.items():
        values = np.clip(value + luck + random.normal(0, 0.008, 200), 0, 1)
        (folder / "resamples" / f"{name}.json").write_text(json.dumps(values.round(6).tolist()))


def _signs() -> dict[str, Any]:
    names = (
        ("bright ring", 0.94, True),
        ("dark centre", 0.81, True),
        ("mass effect", 0.56, False),
        (NASTY, None, False),
    )
    signs = [{"sign": text, "reliability": value, "kept": kept} for text, value, kept in names]
    return {"brain_mri": {"ring_mass": signs, "oedema": signs[:3], NASTY: signs}}


def _roc(labels: NDArray[np.bool_], values: Floats, label: str) -> dict[str, Any]:
    fpr, tpr, _ = roc_curve(labels, values)
    return {"task": "brain_mri", "label": label, "fpr": fpr.tolist(), "tpr": tpr.tolist()}


def _precise(labels: NDArray[np.bool_], values: Floats, label: str) -> dict[str, Any]:
    precision, recall, _ = precision_recall_curve(labels, values)
    points = {"recall": recall.tolist(), "precision": precision.tolist(), "prevalence": float(labels.mean())}
    return {"task": "brain_mri", "label": label, **points}


def _case(folder: Path, scored: dict[str, Any], kind: str, random: np.random.Generator) -> dict[str, Any]:
    """A head with a bright lesion, its mask, and for the method without categories a map that glows at the lesion."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    cy, cx = random.uniform(-0.35, 0.35, 2)
    lesion = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.02) * scored["label"]
    brain = np.where((y / 0.85) ** 2 + (x / 0.7) ** 2 < 1, 0.45 + 0.1 * np.sin(9 * x) * np.cos(8 * y), 0.03)
    glow = np.clip(lesion + 0.2 * np.exp(-((y + 0.2) ** 2 + (x - 0.3) ** 2) / 0.1), 0, 1)
    pictures = {"image": brain + 0.5 * lesion}
    if scored["label"]:
        pictures["mask"] = (lesion > 0.4).astype(float)
    if not scored["category_scores"]:
        pictures["map"] = np.stack([0.5 * brain + 0.5 * glow, 0.5 * brain + 0.2 * glow, 0.5 * brain * (1 - glow)], -1)
    stem = f"gallery/{scored['name'].removesuffix('.png')}"
    for what, pixels in pictures.items():
        Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(folder / f"{stem}_{what}.png")
    paths = {what: f"{stem}_{what}.png" for what in pictures}
    evidence = [
        {
            "category": name,
            "score": value,
            "signs": [["bright ring", value + 0.1], ["dark centre", value - 0.7]],
            "supports": 0.3,
            "probability": 1 / (1 + math.exp(-value)),
        }
        for name, value in sorted(scored["category_scores"].items(), key=lambda pair: -pair[1])
    ]
    return scored | {"mask": None, "map": None} | paths | {"kind": kind, "evidence": evidence}
