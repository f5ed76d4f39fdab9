"""Everything that computes: frozen towers, the parts trained inside them, and the logits between images and signs."""

import torch
from torch import Tensor

from fed_fsad.data.features import Features
from fed_fsad.methods.sdmad.adapters import Adapters, layers_of
from fed_fsad.methods.sdmad.backbone import Backbone
from fed_fsad.methods.sdmad.context import context_tokens
from fed_fsad.methods.sdmad.settings import Settings
from fed_fsad.methods.sdmad.towers import ImageTower, TextTower
from fed_fsad.methods.sdmad.vocabulary import SignTable, Vocabulary


class SignNetwork:
    """A frozen model with the chosen trainable parts; knows the texts of a vocabulary, not what they mean."""

    def __init__(self, backbone: Backbone, vocabulary: Vocabulary, settings: Settings, seed: int) -> None:
        self._images = ImageTower(backbone)
        self._texts = TextTower(backbone)
        self._scale: Tensor = backbone.model.logit_scale.exp()
        parts = settings.trainable
        self._context = context_tokens(settings.n_ctx, self._texts.width, seed) if "context" in parts else None
        self._text_adapters: Adapters | None = None
        self._image_adapters: Adapters | None = None
        if "text_adapters" in parts:
            layers = layers_of(settings.text_layers, len(self._texts.blocks))
            self._text_adapters = Adapters(
                "text_adapters", self._texts.width, settings.text_bottleneck, layers, settings.keep, seed
            )
        if "image_adapters" in parts:
            layers = layers_of(settings.image_layers, len(self._images.blocks))
            self._image_adapters = Adapters(
                "image_adapters", self._images.width, settings.image_bottleneck, layers, settings.keep, seed
            )
        self._tokens = self._texts.tokenize(vocabulary.texts, 0 if self._context is None else settings.n_ctx)
        with torch.no_grad():
            self._frozen_signs = self._texts.encode(self._tokens, None, None)

    @property
    def cached_layer(self) -> int | None:
        """The image layer whose input is cached per image, counted from 1; None when the embedding itself is."""
        return None if self._image_adapters is None else self._image_adapters.layers[0]

    def trainable(self) -> dict[str, Tensor]:
        """Context tokens, then text adapters, then image adapters, as far as they are switched on."""
        own = {} if self._context is None else {"context/tokens": self._context}
        for adapters in (self._text_adapters, self._image_adapters):
            own |= {} if adapters is None else adapters.named()
        return own

    def features(self, images: Tensor) -> Features:
        """Frozen "embedding" [N, D] and, with image adapters, "tokens" [N, L, W] of images [N, 3, S, S] in [0, 1]."""
        tokens, embedding = self._images.frozen(images, self.cached_layer or 1)
        return {"embedding": embedding} if self.cached_layer is None else {"embedding": embedding, "tokens": tokens}

    def image_embeddings(self, features: Features) -> Tensor:
        """Unit embeddings [N, D] as the trained parts see the images."""
        if self._image_adapters is None:
            return features["embedding"]
        return self._images.finish(features["tokens"], self._image_adapters)

    def sign_embeddings(self, tasks: list[SignTable]) -> dict[str, Tensor]:
        """Unit sign embeddings [S, D] per task; a text that several tasks or categories share is encoded once."""
        if self._context is None and self._text_adapters is None:
            return {signs.task: self.frozen_sign_embeddings(signs) for signs in tasks}
        used = torch.tensor(sorted({row for signs in tasks for row in signs.rows.tolist()}))
        encoded = self._texts.encode(self._tokens[used], self._context, self._text_adapters)
        return {signs.task: encoded[torch.searchsorted(used, signs.rows)] for signs in tasks}

    def frozen_sign_embeddings(self, signs: SignTable) -> Tensor:
        """Unit sign embeddings [S, D] of the untouched model, computed when the network was built."""
        return self._frozen_signs[signs.rows]

    @torch.no_grad()
    def frozen_text_embeddings(self, texts: list[str]) -> Tensor:
        """Unit embeddings [N, D] of any texts by the untouched model. Raises DataError for a text too long."""
        return self._texts.encode(self._texts.tokenize(texts, 0), None, None)

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """z = logit scale * cosine, [B, S], of unit embeddings [B, D] and [S, D]."""
        return self._scale * images @ texts.T
