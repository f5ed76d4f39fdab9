"""Stage 2: which signs speak for a category, and how their logits become a score (a reconstruction, ours)."""

import math

import torch
from torch import Tensor


def reliability(z: Tensor, labels: Tensor, member: Tensor) -> Tensor:
    """AUROC of every sign on the supports, [M + 1, S]; NaN where a sign is no member or one class has no support.

    z: [K, S] logits. labels: [K, M] bool. member: [M + 1, S] bool, row 0 = normal, which is measured on normal
    against abnormal supports.
    """
    positive = torch.cat([~labels.any(dim=1, keepdim=True), labels], dim=1)
    result = torch.full(member.shape, math.nan)
    for row in range(len(member)):
        inside, outside = z[positive[:, row]][:, member[row]], z[~positive[:, row]][:, member[row]]
        if len(inside) and len(outside):
            gap = inside[:, None] - outside[None]
            result[row, member[row]] = ((gap > 0).double() + 0.5 * (gap == 0)).mean(dim=(0, 1)).float()
    return result


def kept_signs(auroc: Tensor, member: Tensor, share: float) -> Tensor:
    """The ceil(share * K_m) most reliable signs of every row, ties to the lower index, [M + 1, S] bool.

    A row whose reliability is unknown (NaN) keeps all its signs; none is ever left without a sign.
    """
    kept = member.clone()
    for row in range(len(member)):
        own = member[row].nonzero().squeeze(1)
        if not auroc[row, own].isnan().any():
            count = math.ceil(share * len(own))
            order = auroc[row, own].argsort(descending=True, stable=True)
            kept[row, own[order[count:]]] = False
    return kept


def mean_scores(z: Tensor, kept: Tensor) -> Tensor:
    """s_m = mean z of the kept signs of m minus that of normal, [B, M], from logits [B, S] and kept [M + 1, S]."""
    g = sign_means(z, kept)
    return g[:, 1:] - g[:, :1]


def sign_means(z: Tensor, member: Tensor) -> Tensor:
    """g: the mean logit over each row's signs, [B, M + 1], from z [B, S] and member [M + 1, S]."""
    weights = member.to(z)
    return z @ (weights / weights.sum(dim=1, keepdim=True)).T


def sample_scores(z: Tensor, kept: Tensor) -> Tensor:
    """s_m from the ceil(r_m / 2) signs that fire most in each image itself, [B, M].

    r_m counts the kept signs of m; normal is represented by the same number of its own largest logits (or all).
    """
    normal = z[:, kept[0]].sort(dim=1, descending=True).values
    columns = []
    for row in kept[1:]:
        own = z[:, row]
        count = math.ceil(own.shape[1] / 2)
        columns.append(own.topk(count, dim=1).values.mean(dim=1) - normal[:, :count].mean(dim=1))
    return torch.stack(columns, dim=1)


def sign_shares(z: Tensor, kept: Tensor, sample: bool) -> Tensor:
    """What each sign gave to s_m, [B, M, S]: its logit less the mean of the normal signs it was held against; NaN where
    it did not count. The mean over the rest is s_m of `sample_scores` (with `sample`) or of `mean_scores`.
    """
    shares = torch.full((len(z), len(kept) - 1, z.shape[1]), math.nan)
    for m, row in enumerate(kept[1:]):
        own = row.nonzero().squeeze(1)
        count = math.ceil(len(own) / 2) if sample else len(own)
        top = own[z[:, own].topk(count, dim=1).indices]
        normal = z[:, kept[0]]
        held = normal.topk(min(count, normal.shape[1]), dim=1).values if sample else normal
        shares[:, m].scatter_(1, top, z.gather(1, top) - held.mean(dim=1, keepdim=True))
    return shares
