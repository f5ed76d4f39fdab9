"""Stage 1: align signs with categories, and drive the categories of one image apart (a reconstruction, ours)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sign_loss(g: Tensor, present: Tensor, inter_weight: float) -> Tensor:
    """L = L_align + inter_weight * L_inter per image, [B].

    g: [B, M + 1], mean logit of normal (column 0) and of every category. present: [B, M] bool; all False = normal.
    """
    return align_loss(g, present) + inter_weight * inter_loss(g, present)


def align_loss(g: Tensor, present: Tensor) -> Tensor:
    """Mean over categories of BCE-with-logits(g_m - g_0, y_m), [B]; 0 when there is no category."""
    logits = g[:, 1:] - g[:, :1]
    losses = F.binary_cross_entropy_with_logits(logits, present.to(g.dtype), reduction="none")
    return losses.sum(dim=1) / max(present.shape[1], 1)


def inter_loss(g: Tensor, present: Tensor) -> Tensor:
    """Mean over the present m of log(1 + sum over the absent j of exp(g_j - g_m)), [B].

    Normal counts as present when nothing else is, and as absent otherwise; co-present categories never meet.
    """
    positive = torch.cat([~present.any(dim=1, keepdim=True), present], dim=1)
    # the lowest float instead of -inf: with nothing absent the loss and its gradient are 0, not NaN
    absent = g.masked_fill(positive, torch.finfo(g.dtype).min).logsumexp(dim=1, keepdim=True)
    losses = F.softplus(absent - g).masked_fill(~positive, 0)
    return losses.sum(dim=1) / positive.sum(dim=1)
