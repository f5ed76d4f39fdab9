"""Learnable context tokens in front of every sign."""

import torch
from torch import Tensor

from fed_fsad.seeds import torch_stream


def context_tokens(n_ctx: int, width: int, seed: int) -> Tensor:
    """[n_ctx, width], shared by all signs (ours; in the manner of CoOp, Zhou et al. 2022).

    Drawn from N(0, 0.02), the scale at which CLIP initialises its own token embeddings.
    """
    tokens = 0.02 * torch.randn(n_ctx, width, generator=torch_stream(seed, "sdmad", "context"))
    return tokens.requires_grad_()
