"""Episodes: which image is query, which are its supports, and which of them form one privacy record."""

from dataclasses import dataclass

from torch import Tensor

from fed_fsad.data.features import Rows


@dataclass(frozen=True)
class EpisodeSpec:
    """What a method trains on.

    supports: normal images beside every query (K); 0 means single labelled images.
    normals_only: queries are normal images only.
    batch: queries per step.
    """

    supports: int
    normals_only: bool
    batch: int


@dataclass(frozen=True)
class Episode:
    """One training batch, as frozen features; supports are gathered from the same rows, so each image is encoded once.

    rows: N images of one task when supports > 0, of any tasks otherwise.
    query: [B] int64, the row of each query.
    support: [B, K] int64, the rows of its supports; K may be 0.
    record: [B] int64, the privacy record each query belongs to (0..R-1); arange(B) when every query is its own.
    """

    rows: Rows
    query: Tensor
    support: Tensor
    record: Tensor
