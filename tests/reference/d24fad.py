"""D²4FAD's formulas, one image and one number at a time, in float64 numpy; shares no code with the project."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]


def cosine(a: Array, b: Array) -> float:
    """Cosine of two arrays seen as vectors."""
    a, b = a.ravel(), b.ravel()
    return float(sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt((a @ a) * (b @ b)))


def keys(phi_weight: Array, phi_bias: Array, support: Array) -> Array:
    """A 1x1 convolution: weight [C, C], bias [C], support [C, H, W]."""
    out = np.zeros_like(support)
    for y, x in np.ndindex(support.shape[1:]):
        out[:, y, x] = phi_weight @ support[:, y, x] + phi_bias
    return out


def weights(query: Array, support_keys: list[Array], divisor: float) -> Array:
    """softmax_j of <query, key_j> / divisor."""
    logits = [float(np.sum(query * key)) / divisor for key in support_keys]
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return np.array([e / sum(exponentials) for e in exponentials])


def weighted_support(query: Array, supports: list[Array], support_keys: list[Array], divisor: float) -> Array:
    """Σ_j w_j s_j."""
    total = np.zeros_like(query)
    for weight, support in zip(weights(query, support_keys, divisor), supports, strict=True):
        total += weight * support
    return total


def bilinear(grid: Array, size: int) -> Array:
    """[h, w] to [size, size], corners aligned."""
    h, w = grid.shape
    out = np.zeros((size, size))
    for y, x in np.ndindex(out.shape):
        v, u = y * (h - 1) / (size - 1), x * (w - 1) / (size - 1)
        top, left = min(int(v), h - 2), min(int(u), w - 2)
        dv, du = v - top, u - left
        out[y, x] = (
            grid[top, left] * (1 - dv) * (1 - du)
            + grid[top, left + 1] * (1 - dv) * du
            + grid[top + 1, left] * dv * (1 - du)
            + grid[top + 1, left + 1] * dv * du
        )
    return out


def distance_map(query: Array, other: Array) -> Array:
    """1 - cos over channels at every position of two [C, H, W]."""
    out = np.zeros(query.shape[1:])
    for y, x in np.ndindex(out.shape):
        out[y, x] = 1 - cosine(query[:, y, x], other[:, y, x])
    return out


def anomaly_map(distances: list[Array], size: int) -> Array:
    """Upsampled, summed over scales, blurred with sigma 4 at 128 px."""
    return np.asarray(ndimage.gaussian_filter(sum(bilinear(d, size) for d in distances), sigma=4 * size / 128))


def nearest_patch_distances(query: tuple[Array, Array], supports: list[tuple[Array, Array]]) -> Array:
    """Stages 2 and 3 as ([C2, 2h, 2w], [C3, h, w]): distance of each patch to its nearest support patch, [2h, 2w]."""
    bank = [patch for f2, f3 in supports for patch in _patches(f2, f3)]
    nearest = [min(1 - cosine(patch, other) for other in bank) for patch in _patches(*query)]
    return np.array(nearest).reshape(query[0].shape[1:])


def _patches(f2: Array, f3: Array) -> list[Array]:
    """Stage 3 is doubled with half-pixel centres: quarter steps, clamped at the border."""
    h, w = f2.shape[1:]
    centres = [np.clip((np.arange(n) + 0.5) / 2 - 0.5, 0, n // 2 - 1) for n in (h, w)]
    where = np.stack(np.meshgrid(*centres, indexing="ij"))
    doubled = np.stack([ndimage.map_coordinates(channel, where, order=1, mode="nearest") for channel in f3])
    return [np.concatenate([f2[:, y, x], doubled[:, y, x]]) for y, x in np.ndindex(h, w)]
