"""Area under the per-region overlap curve (Bergmann et al., "MVTec AD", IJCV 2021, section 5.3)."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


def aupro(masks: NDArray[np.bool_], maps: NDArray[np.float32], limit: float = 0.3) -> float:
    """Mean overlap of abnormal regions, integrated over false positive rates in [0, `limit`] and divided by `limit`.

    masks, maps: [N, H, W]. A region is a set of abnormal pixels of one image that touch, corners included; every
    region counts the same whatever its size. The curve runs through every distinct score, straight in between.
    NaN when no pixel, or every pixel, is abnormal.
    """
    if not masks.any() or masks.all():
        return math.nan
    order = np.argsort(-maps, axis=None)
    sorted_scores = maps.ravel()[order]
    # A threshold stands behind the last of equal scores: ties are flagged together.
    steps = np.append(np.flatnonzero(np.diff(sorted_scores)), sorted_scores.size - 1)
    overlap = np.cumsum(_region_weights(masks).ravel()[order])[steps]
    normal = np.cumsum(~masks.ravel()[order])[steps]
    return _area(np.append(0.0, normal / normal[-1]), np.append(0.0, overlap), limit) / limit


def _region_weights(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[N, H, W]: what flagging a pixel adds to the mean overlap; 0 outside of regions, 1 in sum."""
    weights = np.zeros(masks.shape)
    regions = 0
    for mask, weight in zip(masks, weights, strict=True):
        labels, count = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
        sizes = np.bincount(labels.ravel(), minlength=count + 1).astype(np.float64)
        sizes[0] = np.inf
        weight += 1 / sizes[labels]
        regions += count
    return weights / regions


def _area(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Trapezoids under the curve (x, y) up to x = `limit`, the last one cut there; x never falls."""
    inside = int(np.searchsorted(x, limit, side="right"))
    if inside < x.size:
        slope = (y[inside] - y[inside - 1]) / (x[inside] - x[inside - 1])
        cut = y[inside - 1] + slope * (limit - x[inside - 1])
        x, y = np.append(x[:inside], limit), np.append(y[:inside], cut)
    return float(np.trapezoid(y, x))
