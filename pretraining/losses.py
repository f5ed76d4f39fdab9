"""Losses of the embedded CLIP."""

from torch import Tensor


def multi_positive(logits: Tensor, positive: Tensor) -> Tensor:
    """-log of the softmax over a row, averaged over the row's positives and then over the rows that have any.

    logits: [N, M]; positive: [N, M] bool. After Khosla et al. 2020, equation 2, across modalities.
    """
    count = positive.sum(1)
    per_row = -(logits.log_softmax(1) * positive).sum(1) / count.clamp(min=1)
    return per_row.sum() / (count > 0).sum().clamp(min=1)
