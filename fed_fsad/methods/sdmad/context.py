"""Learnable context tokens in front of every sign."""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fed_fsad.seeds import torch_stream


class Context:
    """n_ctx tokens for every sign, or a set of them for every owner: a category or a modality.

    Ours, in the manner of CoOp (Zhou et al. 2022). All sets start from one draw of N(0, 0.02), the scale at which CLIP
    initialises its own token embeddings.
    """

    def __init__(self, owners: Iterable[str], n_ctx: int, width: int, seed: int) -> None:
        start = 0.02 * torch.randn(n_ctx, width, generator=torch_stream(seed, "sdmad", "context"))
        self._tokens = {owner: start.clone().requires_grad_() for owner in dict.fromkeys(owners)}

    def named(self) -> dict[str, Tensor]:
        """The parameters, [n_ctx, width] each: "context/tokens" where all signs share one set, else one per owner."""
        return {tensor_name(owner): tokens for owner, tokens in self._tokens.items()}

    def of(self, owners: Sequence[str]) -> Tensor:
        """The tokens of every text's owner, [N, n_ctx, width], or [1, n_ctx, width] where all share one set."""
        if len(self._tokens) == 1:
            return next(iter(self._tokens.values()))[None]
        return torch.stack([self._tokens[owner] for owner in owners])


def tensor_name(owner: str) -> str:
    """The name of an owner's tokens: a piece of the part "context" that is sent or kept by itself."""
    if not owner:
        return "context/tokens"
    plain = re.sub(r"[^\w .:()+-]", "_", owner)
    return f"context/{plain}/tokens"
