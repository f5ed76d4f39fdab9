"""The frozen vision-language model: the embedded one, or any open_clip model with its tokenizer and transform."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.pretrained import get_pretrained_cfg
from open_clip.tokenizer import SimpleTokenizer
from open_clip.utils import to_2tuple
from torch import Tensor

from fed_fsad.assets import asset, load_asset
from fed_fsad.errors import ConfigError
from fed_fsad.seeds import derive


class Tokenizer(Protocol):
    """Texts to token numbers, [N, context_length] int64, zeros after the end token."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Backbone:
    """A frozen open_clip model.

    mean, std: [3, 1, 1], of images in [0, 1]. image_size: side in pixels. fingerprint: a SHA-256 over every weight and
    the transform, hexadecimal.
    """

    name: str
    model: CLIP | CustomTextCLIP
    tokenizer: Tokenizer
    mean: Tensor
    std: Tensor
    image_size: int
    fingerprint: str


def freeze(
    name: str,
    model: CLIP | CustomTextCLIP,
    tokenizer: Tokenizer,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: int,
) -> Backbone:
    """Switch an open_clip model to evaluation without gradients and fingerprint it with its transform."""
    model.eval().requires_grad_(False)
    digest = hashlib.sha256(json.dumps([list(mean), list(std), image_size]).encode())
    for key, weight in sorted(model.state_dict().items()):
        digest.update(f"{key}{tuple(weight.shape)}{weight.dtype}".encode())
        digest.update(weight.contiguous().numpy().data)
    centre, spread = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return Backbone(name, model, tokenizer, centre, spread, image_size, digest.hexdigest())


def build_embedded(config: Mapping[str, Any], seed: int) -> CLIP:
    """A freshly initialised open_clip model of the embedded architecture.

    config: the content of clip/model.json: `model_cfg` as open_clip writes it, `preprocess_cfg` with mean and std.
    seed: the initialisation; the global random state is left as it was.
    """
    model_cfg = config["model_cfg"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "clip", "initialisation"))
        return CLIP(
            embed_dim=model_cfg["embed_dim"],
            vision_cfg=CLIPVisionCfg(**model_cfg["vision_cfg"]),
            text_cfg=CLIPTextCfg(**model_cfg["text_cfg"]),
            quick_gelu=model_cfg["quick_gelu"],
        )


def read_config(path: Path) -> dict[str, Any]:
    """The embedded architecture as `build_embedded` takes it."""
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def small_tokenizer(merges: Path, context_length: int) -> SimpleTokenizer:
    """open_clip's byte-pair tokenizer over a merges file: gzip, one heading line, one pair a line, no empty line.

    Its vocabulary counts 512 bytes + merges + 2; `text_cfg.vocab_size` must be equal to it.
    """
    return SimpleTokenizer(bpe_path=str(merges), context_length=context_length)


def load_backbone(model: str, weights: str | None, seed: int) -> Backbone:
    """The frozen model called `model`.

    model: "embedded", "random" (the embedded architecture with weights drawn from `seed`), or an open_clip name.
    weights: of an open_clip name, the pretrained tag or a local file. Raises ConfigError when they cannot be loaded.
    """
    return _embedded(model == "random", seed) if model in ("embedded", "random") else _open_clip(model, weights)


def _embedded(random: bool, seed: int) -> Backbone:
    config = read_config(asset("clip/model.json"))
    text = config["model_cfg"]["text_cfg"]
    tokenizer = small_tokenizer(asset("clip/bpe.txt.gz"), text["context_length"])
    model = build_embedded(config, seed)
    if not random:
        model.load_state_dict(load_asset("clip/weights.safetensors"))
    transform = config["preprocess_cfg"]
    size = config["model_cfg"]["vision_cfg"]["image_size"]
    return freeze("random" if random else "embedded", model, tokenizer, transform["mean"], transform["std"], size)


def _open_clip(name: str, weights: str | None) -> Backbone:
    if weights is None and ":" not in name:
        raise ConfigError(f"model {name!r} has no weights; name an open_clip tag or a local file in `weights`")
    try:
        quick_gelu = get_pretrained_cfg(name, weights or "").get("quick_gelu", False)
        with torch.random.fork_rng(devices=[]):
            model = open_clip.create_model(
                name, pretrained=weights, require_pretrained=True, force_quick_gelu=quick_gelu
            )
        tokenizer = open_clip.get_tokenizer(name)
    except (RuntimeError, OSError, ValueError) as problem:
        reason = str(problem).splitlines()[0]
        raise ConfigError(
            f"open_clip cannot load model {name!r} with weights {weights!r} ({reason}); use a name and tag it lists, "
            "or a weights file of that very model"
        ) from problem
    transform = open_clip.get_model_preprocess_cfg(model)
    height, width = to_2tuple(model.visual.image_size)
    if height != width:
        raise ConfigError(f"model {name!r} takes images of {height} x {width} pixels; choose one with square images")
    return freeze(name, model, tokenizer, transform["mean"], transform["std"], height)
