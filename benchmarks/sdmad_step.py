"""What a training step of SD-MAD costs: a plain loop over both towers, against ours.

    python -m benchmarks.sdmad_step --models ViT-B-16 ViT-L-14-336 --batch 4

Both do the same arithmetic on the same phantoms, signs and random weights of the true shapes. The plain loop runs both
towers forward and backward in every step, reads texts to the model's full length, and encodes every sign of every
category of the task by itself. Every line is measured in a process of its own on one thread: CPU seconds, the most
memory held, and how far loss and gradient are from the plain loop's, |difference| / |plain|.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import SECONDS, Step, print_lines
from fed_fsad.data.episodes import Episode
from fed_fsad.data.features import FeatureCache, Rows
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.data.signs import load_signs
from fed_fsad.methods.sdmad.adapters import shifted
from fed_fsad.methods.sdmad.backbone import freeze, load_backbone
from fed_fsad.methods.sdmad.detector import SdMad
from fed_fsad.methods.sdmad.loss import sign_loss
from fed_fsad.methods.sdmad.settings import Part, Settings
from fed_fsad.methods.sdmad.vocabulary import build_vocabulary
from fed_fsad.methods.training import optimiser
from fed_fsad.seeds import derive

SEED = 1
TASK = "oct"
TEXT: tuple[Part, ...] = ("context", "text_adapters")
BOTH: tuple[Part, ...] = (*TEXT, "image_adapters")


@dataclass(frozen=True)
class Case:
    """One measured shape: an open_clip architecture, or random for the small embedded one; what trains; images."""

    model: str
    trainable: tuple[Part, ...]
    batch: int

    def method(self) -> SdMad:
        """With random weights; the same in every process."""
        torch.manual_seed(derive(SEED, "weights"))
        if self.model == "random":
            backbone = load_backbone("random", None, SEED)
        else:
            model, tokenizer = open_clip.create_model(self.model), open_clip.get_tokenizer(self.model)
            transform = open_clip.get_model_preprocess_cfg(model)
            size = int(model.visual.image_size[0])
            backbone = freeze(self.model, model, tokenizer, transform["mean"], transform["std"], size)
        settings = Settings(trainable=self.trainable, batch=self.batch)
        return SdMad(backbone, build_vocabulary([load_signs("phantoms")]), settings, SEED)

    def samples(self) -> Sequence[Sample]:
        """Half of them normal."""
        return phantom_set(TASK, self.batch // 2, self.batch - self.batch // 2, 0, SEED)

    def rows(self, method: SdMad) -> Rows:
        """Their frozen features, as a run keeps them."""
        return FeatureCache(0).rows(method.model_id, method.features, method.image_size, self.samples())


def plain_step(case: Case) -> Step:
    """Both towers, whole, in every step."""
    method, samples = case.method(), case.samples()
    network, backbone = method._network, method._backbone
    backbone.model.requires_grad_(True)
    images = torch.stack([torch.from_numpy(sample.source.image(method.image_size)) for sample in samples])
    signs = method._trained.task(TASK)
    groups = [row.nonzero().squeeze(1).tolist() for row in signs.member]
    present = signs.labels([sample.categories for sample in samples])
    full = backbone.model.context_length - (0 if network._context is None else method._settings.n_ctx)
    tokens = F.pad(network._tokens, (0, full - network._tokens.shape[1]))
    context = None if network._context is None else network._context.of([""])

    def loss() -> Tensor:
        with shifted(network._images.blocks, network._image_adapters):
            seen = F.normalize(backbone.model.visual((images - backbone.mean) / backbone.std), dim=-1)
        every = tokens[signs.rows[[sign for group in groups for sign in group]]]
        texts = network._texts.encode(every, context, network._text_adapters)
        own = torch.split(network.logits(seen, texts), [len(group) for group in groups], dim=1)
        g = torch.stack([logits.mean(dim=1) for logits in own], dim=1)
        return sign_loss(g, present, method._settings.inter_weight).mean()

    return stepping(method, loss)


def our_step(case: Case, *, images: int | None = None) -> Step:
    """The method's own losses on cached features; images: rows of the batch, the case's images over and over."""
    method = case.method()
    rows = case.rows(method)
    count = len(rows) if images is None else images
    many = rows.select([place % len(rows) for place in range(count)])
    place = torch.arange(count)
    episode = Episode(many, place, torch.zeros(count, 0, dtype=torch.long), place)
    return stepping(method, lambda: method.losses(episode).mean())


def stepping(method: SdMad, loss: Callable[[], Tensor]) -> Step:
    """Loss, gradients and Adam, as training does it; what comes out is loss and gradient."""
    tensors = method.trainable()
    adam = optimiser(tensors, method._settings)

    def step() -> dict[str, Tensor]:
        adam.zero_grad()
        found = loss()
        found.backward()  # type: ignore[no-untyped-call]
        adam.step()
        gradients = {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
        return {"loss": found.detach(), **gradients}

    return step


WAYS: Mapping[str, Callable[[Case], Step]] = {"plain": plain_step, "**ours**": our_step}
MANY: Mapping[str, Callable[[Case], Step]] = {
    f"ours, {images:,} images": partial(our_step, images=images) for images in (16, 100, 1000)
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ViT-B-16"], help="open_clip architectures, or random")
    parser.add_argument("--batch", type=int, default=4, help="images per step")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="a quick line is repeated for that long")
    asked = parser.parse_args(arguments)
    for model in asked.models:
        for parts in (TEXT, BOTH):
            title = f"A training step, {' + '.join(parts)}, {asked.batch} images, {model}"
            ways = {name: partial(way, Case(model, parts, asked.batch)) for name, way in WAYS.items()}
            print_lines(title, ways, 1, asked.seconds)
    title = f"Larger batches of cached embeddings, {' + '.join(TEXT)}, {asked.models[0]}"
    case = Case(asked.models[0], TEXT, asked.batch)
    print_lines(title, {name: partial(way, case) for name, way in MANY.items()}, 1, asked.seconds)


if __name__ == "__main__":
    main()
