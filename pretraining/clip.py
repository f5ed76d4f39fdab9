"""The embedded CLIP: images against captions and single signs, with lesion masks as a second teacher (ours)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_fsad.methods.sdmad.backbone import Backbone, Tokenizer, build_embedded
from fed_fsad.methods.sdmad.loss import sign_loss
from fed_fsad.methods.sdmad.selection import sign_means
from fed_fsad.methods.sdmad.towers import TextTower
from fed_fsad.seeds import derive, numpy_stream
from pretraining.corpus import PhantomCorpus
from pretraining.losses import multi_positive
from pretraining.training import Plan

ORGANS_PER_STEP, IMAGES, CAPTIONS = 3, 32, 16
"""A step shows few organs, so that its negatives are hard; images and captions of each, and every sign of it."""
HOTTEST = 4.6
"""Largest log of the logit scale, a factor of 100 as in CLIP."""
LOOKING = 0.4
"""Share of the steps, at the start, in which the image tower only learns where lesions are and what they are."""
ARCHITECTURE: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 96,
            "patch_size": 12,
            "width": 128,
            "layers": 4,
            "head_width": 32,
            "pool_type": "avg",
        },
        "text_cfg": {"context_length": 40, "width": 128, "heads": 4, "layers": 4},
    },
    "preprocess_cfg": {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]},
}
"""As open_clip writes a model config, but for the vocabulary's size; the normalisation is CLIP's own.

Patches are averaged rather than read at a class token: a small tower then learns from every patch at once.
"""


def clip_plan(seed: int, steps: int, begun: str = "") -> Plan:
    """The recipe of the embedded CLIP. begun: SHA-256 of the weights it goes on from, none when from nothing."""
    return Plan("clip", seed, steps, lr=1e-3 if begun else 1.5e-3, weight_decay=0.05, save_every=50, begun=begun)


class ClipTraining(nn.Module):
    """The open_clip model with heads over its patch tokens, which only training needs: lesion or not, and which."""

    def __init__(self, config: Mapping[str, Any], tokenizer: Tokenizer, corpus: PhantomCorpus, plan: Plan) -> None:
        super().__init__()
        seed = plan.seed
        self.plan, self.corpus, self.tokenizer = plan, corpus, tokenizer
        self.model = build_embedded(config, seed)
        vision, transform = config["model_cfg"]["vision_cfg"], config["preprocess_cfg"]
        self.cells: int = vision["image_size"] // vision["patch_size"]
        self.mean, self.std = (
            nn.Buffer(torch.tensor(transform[key]).view(3, 1, 1), persistent=False) for key in ("mean", "std")
        )
        backbone = Backbone("training", self.model, tokenizer, self.mean, self.std, vision["image_size"], "")
        self.text = TextTower(backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "clip", "patch head"))
            outputs = 1 + len(corpus.kinds)
            self.patch_head = nn.Sequential(nn.LayerNorm(vision["width"]), nn.Linear(vision["width"], outputs))

    def loss(self, step: int) -> Tensor:
        """The step's loss: where lesions are and what they are; from LOOKING on also captions and single signs."""
        rng = numpy_stream(self.plan.seed, "clip", step)
        organs = rng.permutation(list(self.corpus.by_organ))[:ORGANS_PER_STEP]
        drawn = np.stack([rng.choice(self.corpus.by_organ[organ], IMAGES) for organ in organs])
        indices = drawn.T.flatten().tolist()
        images, masks = (part.to(self.mean.device) for part in self.corpus.pixels(indices, rng))
        embedding, tokens = self._see(images)
        seen = self._patch_loss(tokens, masks, indices)
        if step < LOOKING * self.plan.steps and not self.plan.begun:
            return seen
        captions = [self.corpus.caption(i, rng) for i in indices[: CAPTIONS * ORGANS_PER_STEP]]
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=HOTTEST)
        scale = self.model.logit_scale.exp()
        return (
            self._caption_loss(embedding[: len(captions)], captions, indices, scale)
            + self._sign_loss(embedding, indices, scale)
            + seen
        )

    def _see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings [B, D] and the last layer's patch tokens [B, cells * cells, W]."""
        kept: list[Tensor] = []
        watch = self.model.visual.transformer.register_forward_hook(lambda *call: kept.append(call[2]))
        try:
            embedding = self.model.encode_image((images - self.mean) / self.std, normalize=True)
        finally:
            watch.remove()
        return embedding, kept[0][:, 1:]

    def read(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings [N, D] of the texts, cut after the longest one."""
        tokens = self.tokenizer(list(texts)).to(self.mean.device)
        return self.text.encode(tokens[:, : int(tokens.argmax(1).max()) + 1], None, None)

    def _caption_loss(self, images: Tensor, captions: list[str], indices: list[int], scale: Tensor) -> Tensor:
        """Both directions; captions of images with the same organ and findings are positives of each other's images."""
        logits = scale * images @ self.read(captions).T
        names = [(self.corpus.samples[i].task, self.corpus.samples[i].categories) for i in indices[: len(captions)]]
        same = torch.tensor([[one == other for other in names] for one in names], device=logits.device)
        return (multi_positive(logits, same) + multi_positive(logits.T, same.T)) / 2

    def _sign_loss(self, images: Tensor, indices: list[int], scale: Tensor) -> Tensor:
        """Within each organ and both directions, an image is a positive of every sign its findings may show; beside
        it SD-MAD's own stage-1 loss, which compares the means of sign groups as zero-shot scoring does."""
        samples = [self.corpus.samples[i] for i in indices]
        shown_here = {sample.task for sample in samples}
        tables = {task: table for task, table in self.corpus.tables.items() if task in shown_here}
        texts = self.read([f"a {t.modality} image showing {sign}" for t in tables.values() for sign in t.signs])
        losses = []
        for table, signs in zip(
            tables.values(), torch.split(texts, [len(t.signs) for t in tables.values()]), strict=True
        ):
            own = [i for i, sample in enumerate(samples) if sample.task == table.task]
            labels = table.labels([samples[i].categories for i in own])
            groups = torch.cat([~labels.any(1, keepdim=True), labels], dim=1)
            shown = ((groups.float() @ table.member.float()) > 0).to(images.device)
            logits = scale * images[own] @ signs.T
            matched = multi_positive(logits, shown) + multi_positive(logits.T, shown.T)
            means = sign_means(logits, table.member.to(images.device))
            told_apart = sign_loss(means, labels.to(images.device), inter_weight=1.0)
            losses.append(matched + told_apart.mean())
        return torch.stack(losses).mean() / 2

    def _patch_loss(self, tokens: Tensor, masks: Tensor, indices: list[int]) -> Tensor:
        """Which patches hold a lesion (each side weighs half, as lesions are rare), and of which kind those are."""
        lesion = F.adaptive_max_pool2d(masks, self.cells).flatten(1)
        read = self.patch_head(tokens)
        balance = lesion / lesion.sum().clamp(min=1) + (1 - lesion) / (1 - lesion).sum().clamp(min=1)
        where = F.binary_cross_entropy_with_logits(read[..., 0], lesion, balance, reduction="sum") / 2
        kinds = self.corpus.kinds
        shown = torch.tensor([[kind in self.corpus.findings(i) for kind in kinds] for i in indices]).to(masks)
        share = shown / shown.sum(1, keepdim=True).clamp(min=1)
        unlike = -(read[..., 1:].log_softmax(-1) * share.unsqueeze(1)).sum(-1)
        what: Tensor = (unlike * lesion).sum() / lesion.sum().clamp(min=1)
        return where + what
