"""The towers of models such as BiomedCLIP: a vision transformer of timm, a text encoder of Hugging Face.

Both run their own forward pass; adapters shift their layers from outside, so neither library is patched.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from fed_fsad.errors import ConfigError
from fed_fsad.methods.sdmad.adapters import Adapters, Blocks, shifted
from fed_fsad.methods.sdmad.backbone import Backbone
from fed_fsad.methods.sdmad.towers import VisionTower, cut


class TimmTower(VisionTower):
    """A vision transformer of timm. Raises ConfigError when the network under open_clip is no plain one."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self._trunk: Any = self._visual.trunk
        if not isinstance(self._trunk, VisionTransformer):
            raise ConfigError(f"the image tower of {backbone.name!r} is no vision transformer; choose a ViT")
        self.blocks = self._trunk.blocks
        self.width = self._trunk.embed_dim

    def pooled(self, tokens: Tensor) -> Tensor:
        """Unit embedding [B, D] of tokens [B, L, W] that leave the last layer."""
        return F.normalize(self._visual.head(self._trunk.forward_head(self._trunk.norm(tokens))), dim=-1)

    def patches(self, tokens: Tensor) -> Tensor:
        """Unit embeddings [B, patches, D] of the patches among tokens [B, L, W] that leave any layer."""
        own = self._trunk.norm(tokens)[:, self._trunk.num_prefix_tokens :]
        return F.normalize(self._visual.head(self._trunk.head(self._trunk.fc_norm(own))), dim=-1)


class BertTower:
    """Texts to unit embeddings by a Hugging Face encoder under open_clip; the same verbs as towers.TextTower.

    Context enters behind the first token as embeddings; padding is masked, so texts are cut to the longest here too.
    Raises ConfigError when the encoder keeps its layers elsewhere than the BERT family does.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._tower: Any = backbone.model.text
        self._tokenizer = backbone.tokenizer
        layers = getattr(getattr(self._tower.transformer, "encoder", None), "layer", None)
        if layers is None:
            raise ConfigError(
                f"the text tower of {backbone.name!r} is not of the BERT family; choose a CLIP model or BiomedCLIP"
            )
        self.blocks: Blocks = layers
        self.width: int = self._tower.config.hidden_size

    def tokenize(self, texts: Sequence[str], n_ctx: int) -> Tensor:
        """[N, L] int64, cut to the longest text. Raises DataError for a text that is too long beside n_ctx tokens."""
        limit = int(getattr(self._tokenizer, "context_length", self._tower.context_length))
        tokens = self._tokenizer(list(texts), context_length=limit + 1)
        lengths = (tokens != self._tower.config.pad_token_id).sum(dim=1)
        return cut(tokens, lengths, texts, limit - n_ctx)

    def encode(self, tokens: Tensor, context: Tensor | None, adapters: Adapters | None) -> Tensor:
        """[N, D] unit embeddings of tokens [N, L], with context [N or 1, n_ctx, W] after the first token if given."""
        tower = self._tower
        x = tower.transformer.get_input_embeddings()(tokens)
        mask = (tokens != tower.config.pad_token_id).long()
        if context is not None:
            inserted = context.expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], inserted, x[:, 1:]], dim=1)
            mask = torch.cat([mask[:, :1], mask.new_ones(inserted.shape[:2]), mask[:, 1:]], dim=1)
        with shifted(self.blocks, adapters):
            out = tower.transformer(inputs_embeds=x, attention_mask=mask)
        return F.normalize(tower.proj(tower.pooler(out, mask)), dim=-1)
