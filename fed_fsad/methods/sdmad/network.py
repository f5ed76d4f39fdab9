"""Everything that computes: frozen towers, the parts trained inside them, and the logits between images and signs."""

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from torch import Tensor

from fed_fsad.data.features import Features
from fed_fsad.methods.sdmad.adapters import Adapters, layers_of, run_layers
from fed_fsad.methods.sdmad.backbone import Backbone
from fed_fsad.methods.sdmad.biomedical import BertTower, TimmTower
from fed_fsad.methods.sdmad.context import Context
from fed_fsad.methods.sdmad.settings import Settings
from fed_fsad.methods.sdmad.towers import ImageTower, TextTower, VisionTower
from fed_fsad.methods.sdmad.vocabulary import SignTable, Vocabulary


class SignNetwork:
    """A frozen model with the chosen trainable parts; knows the texts of a vocabulary, not what they mean."""

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, settings: Settings, seed: int) -> None:
        model, parts = backbone.model, settings.trainable
        timm, bert = isinstance(model.visual, TimmModel), isinstance(getattr(model, "text", None), HFTextEncoder)
        self._images: VisionTower = TimmTower(backbone) if timm else ImageTower(backbone)
        self._texts = BertTower(backbone) if bert else TextTower(backbone)
        self._scale: Tensor = model.logit_scale.exp()
        self._owners = vocabulary.contexts
        self._context: Context | None = None
        self._text_adapters: Adapters | None = None
        self._image_adapters: Adapters | None = None
        if "context" in parts:
            self._context = Context(self._owners, settings.n_ctx, self._texts.width, seed)
        if "text_adapters" in parts:
            self._text_adapters = _adapters(
                "text_adapters", self._texts, settings.text_layers, settings.text_bottleneck, settings.keep, seed
            )
        if "image_adapters" in parts:
            self._image_adapters = _adapters(
                "image_adapters", self._images, settings.image_layers, settings.image_bottleneck, settings.keep, seed
            )
        depth = len(self._images.blocks)
        adapted = (depth,) if self._image_adapters is None else self._image_adapters.layers
        self._levels = adapted if settings.multilevel else ()
        self._tokens = self._texts.tokenize(vocabulary.texts, 0 if self._context is None else settings.n_ctx)
        with torch.no_grad():
            self._frozen_signs = self._texts.encode(self._tokens, None, None)

    @property
    def cached_layer(self) -> int | None:
        """The image layer whose input is cached per image, counted from 1; None when the embedding itself is."""
        if self._image_adapters is not None:
            return self._image_adapters.layers[0]
        return self._levels[0] if self._levels else None

    def trainable(self) -> dict[str, Tensor]:
        """Context tokens, then text adapters, then image adapters, as far as they are switched on."""
        parts = (self._context, self._text_adapters, self._image_adapters)
        return {name: tensor for part in parts if part is not None for name, tensor in part.named().items()}

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """Frozen tensors that are no part of the model: they lie where it lies."""
        return self._scale, self._tokens, self._frozen_signs

    def features(self, images: Tensor) -> Features:
        """Frozen "embedding" [N, D] and, where layers are adapted or their patches looked at, "tokens" [N, L, W] of
        images [N, 3, S, S] in [0, 1].
        """
        tokens, embedding = self._images.frozen(images, self.cached_layer or 1)
        return {"embedding": embedding} if self.cached_layer is None else {"embedding": embedding, "tokens": tokens}

    def image_embeddings(self, features: Features) -> Tensor:
        """Unit embeddings [N, D] as the trained parts see the images; [N, 1 + levels * patches, D] with `multilevel`,
        the whole image first.
        """
        if self.cached_layer is None:
            return features["embedding"]
        tower = self._images
        left = run_layers(tower.blocks, features["tokens"], self._image_adapters, first=self.cached_layer)
        whole = tower.pooled(left[len(tower.blocks)])
        if not self._levels:
            return whole
        return torch.cat([whole[:, None], *(tower.patches(left[level]) for level in self._levels)], dim=1)

    def sign_embeddings(self, tasks: list[SignTable]) -> dict[str, Tensor]:
        """Unit sign embeddings [S, D] per task; a text that several tasks or categories share is encoded once."""
        if self._context is None and self._text_adapters is None:
            return {signs.task: self.frozen_sign_embeddings(signs) for signs in tasks}
        used = sorted({row for signs in tasks for row in signs.rows.tolist()})
        rows = torch.tensor(used)
        context = None if self._context is None else self._context.of([self._owners[row] for row in used])
        encoded = self._texts.encode(self._tokens[rows], context, self._text_adapters)
        return {signs.task: encoded[torch.searchsorted(rows, signs.rows)] for signs in tasks}

    def frozen_sign_embeddings(self, signs: SignTable) -> Tensor:
        """Unit sign embeddings [S, D] of the untouched model, computed when the network was built."""
        return self._frozen_signs[signs.rows]

    @torch.no_grad()
    def frozen_text_embeddings(self, texts: list[str]) -> Tensor:
        """Unit embeddings [N, D] of any texts by the untouched model. Raises DataError for a text too long."""
        return self._texts.encode(self._texts.tokenize(texts, 0).to(self._tokens.device), None, None)

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """z = logit scale * cosine, [B, S], of unit embeddings [B, D] and [S, D].

        With patches, [B, 1 + levels * patches, D] (ours): the mean of the whole image's logit and of the loudest
        patch's, which is averaged over the levels.
        """
        if images.dim() == 2:
            return self._scale * images @ texts.T
        whole, patches = images[:, 0], images[:, 1:].reshape(len(images), len(self._levels), -1, images.shape[-1])
        loudest = (patches @ texts.T).amax(dim=2).mean(dim=1)
        found: Tensor = self._scale * (whole @ texts.T + loudest) / 2
        return found


def _adapters(
    part: str, tower: VisionTower | TextTower | BertTower, layers: str, bottleneck: int, keep: float, seed: int
) -> Adapters:
    return Adapters(part, tower.width, bottleneck, layers_of(layers, len(tower.blocks)), keep, seed)
