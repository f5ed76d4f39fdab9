"""The two towers of a frozen open_clip model, run layer by layer with the model's own modules."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from fed_fsad.errors import ConfigError, DataError
from fed_fsad.methods.sdmad.adapters import Adapters, Blocks, run_layers
from fed_fsad.methods.sdmad.backbone import Backbone


class VisionTower(ABC):
    """Images to unit embeddings, in two halves: what no adapter touches is computed once and cached.

    blocks: the transformer's layers. width: of its tokens.
    """

    blocks: Blocks
    width: int

    def __init__(self, backbone: Backbone) -> None:
        self._visual: Any = backbone.model.visual
        self._mean = backbone.mean
        self._std = backbone.std

    @torch.no_grad()
    def frozen(self, images: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Tokens entering `layer` [B, L, W] and frozen unit embedding [B, D] of images [B, 3, S, S] in [0, 1]."""
        entering: list[Tensor] = []
        watch = self.blocks[layer - 1].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
        try:
            embedding = self._visual((images - self._mean) / self._std)
        finally:
            watch.remove()
        return entering[0], F.normalize(embedding, dim=-1)

    @abstractmethod
    def pooled(self, tokens: Tensor) -> Tensor:
        """Unit embedding [B, D] of tokens [B, L, W] that leave the last layer."""

    @abstractmethod
    def patches(self, tokens: Tensor) -> Tensor:
        """Unit embeddings [B, patches, D] of the patches among tokens [B, L, W] that leave any layer."""


class ImageTower(VisionTower):
    """open_clip's own vision transformer. Raises ConfigError when the model's image tower is another."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        if not isinstance(self._visual, VisionTransformer):
            raise ConfigError(f"the image tower of {backbone.name!r} is no vision transformer; choose a ViT")
        self.blocks = self._visual.transformer.resblocks
        self.width = self._visual.transformer.width

    def pooled(self, tokens: Tensor) -> Tensor:
        """Unit embedding [B, D] of tokens [B, L, W] that leave the last layer."""
        pooled, _ = self._visual._pool(tokens)
        return F.normalize(_project(pooled, self._visual.proj), dim=-1)

    def patches(self, tokens: Tensor) -> Tensor:
        """Unit embeddings [B, L - 1, D] of the patches among tokens [B, L, W] that leave any layer."""
        return F.normalize(_project(self._visual.ln_post(tokens[:, 1:]), self._visual.proj), dim=-1)


class TextTower:
    """Texts to unit embeddings, with context tokens after the start token.

    Attention is causal and the feature is read at the end token, so nothing behind the longest text is computed: the
    result is that of the full context length. Raises ConfigError when the model's text tower is of another kind.
    """

    def __init__(self, backbone: Backbone) -> None:
        model = backbone.model
        # open_clip keeps the text tower's modules on the model itself (CLIP) or under .text (CustomTextCLIP)
        tower = model if hasattr(model, "token_embedding") else model.text
        pooling = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
        causal = getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
        if pooling != "argmax" or not causal:
            raise ConfigError(
                f"the text tower of {backbone.name!r} is not causal or not read at its end token; choose a CLIP model"
            )
        self._tower = tower
        self._tokenizer = backbone.tokenizer
        self.blocks: Blocks = tower.transformer.resblocks
        self.width: int = tower.transformer.width

    def tokenize(self, texts: Sequence[str], n_ctx: int) -> Tensor:
        """[N, L] int64, cut to the longest text. Raises DataError for a text that is too long beside n_ctx tokens."""
        limit: int = self._tower.context_length
        tokens = self._tokenizer(list(texts), context_length=limit + 1)
        lengths = tokens.argmax(dim=1) + 1
        return cut(tokens, lengths, texts, limit - n_ctx)

    def encode(self, tokens: Tensor, context: Tensor | None, adapters: Adapters | None) -> Tensor:
        """[N, D] unit embeddings of tokens [N, L], with context [N or 1, n_ctx, W] after the start token if given."""
        tower = self._tower
        x = tower.token_embedding(tokens)
        end = tokens.argmax(dim=1)
        if context is not None:
            x = torch.cat([x[:, :1], context.expand(len(x), -1, -1), x[:, 1:]], dim=1)
            end = end + context.shape[1]
        length = x.shape[1]
        x = x + tower.positional_embedding[:length]
        x = run_layers(self.blocks, x, adapters, mask=tower.attn_mask[:length, :length])[len(self.blocks)]
        ends = tower.ln_final(x[torch.arange(len(x)), end])
        return F.normalize(_project(ends, tower.text_projection), dim=-1)


def cut(tokens: Tensor, lengths: Tensor, texts: Sequence[str], room: int) -> Tensor:
    """[N, L] tokens cut to the longest of `lengths`, [N]. Raises DataError for a text that is longer than `room`."""
    longest = int(lengths.argmax())
    if lengths[longest] > room:
        raise DataError(f"{texts[longest]!r} is too long: the model reads {room} tokens of a text; shorten it")
    return tokens[:, : int(lengths[longest])]


def _project(features: Tensor, projection: nn.Module | Tensor | None) -> Tensor:
    """open_clip keeps a text projection as a matrix, as a layer, or leaves it out."""
    if projection is None:
        return features
    projected: Tensor = projection(features) if isinstance(projection, nn.Module) else features @ projection
    return projected
