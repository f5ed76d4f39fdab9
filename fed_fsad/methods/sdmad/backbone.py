"""The frozen vision-language model: the embedded one, or any open_clip model with its tokenizer and transform."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP, resize_pos_embed
from open_clip.pretrained import get_pretrained_cfg
from open_clip.tokenizer import SimpleTokenizer
from open_clip.utils import to_2tuple
from torch import Tensor

from fed_fsad.assets import asset, load_asset
from fed_fsad.errors import ConfigError
from fed_fsad.names import suggestion
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


def build_embedded(config: Mapping[str, Any], seed: int, image_size: int | None = None) -> CLIP:
    """A freshly initialised open_clip model of the embedded architecture.

    config: the content of clip/model.json: `model_cfg` as open_clip writes it, `preprocess_cfg` with mean and std.
    seed: the initialisation; the global random state is left as it was. image_size: None = the config's.
    """
    model_cfg = config["model_cfg"]
    vision_cfg = {**model_cfg["vision_cfg"], **({"image_size": image_size} if image_size else {})}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "clip", "initialisation"))
        return CLIP(
            embed_dim=model_cfg["embed_dim"],
            vision_cfg=CLIPVisionCfg(**vision_cfg),
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


def load_backbone(model: str, weights: str | None, seed: int, image_size: int | None = None) -> Backbone:
    """The frozen model called `model`.

    model: "embedded", "random" (the embedded architecture with weights drawn from `seed`), or an open_clip name.
    weights: of an open_clip name, the pretrained tag or a local file. image_size: in pixels, None = the model's own;
    for another the position embedding is resized. Raises ConfigError when they cannot be loaded, or the size is none.
    """
    if model in ("embedded", "random"):
        return _embedded(model == "random", seed, image_size)
    return _open_clip(model, weights, image_size)


def _embedded(random: bool, seed: int, image_size: int | None) -> Backbone:
    config = read_config(asset("clip/model.json"))
    text = config["model_cfg"]["text_cfg"]
    tokenizer = small_tokenizer(asset("clip/bpe.txt.gz"), text["context_length"])
    vision = config["model_cfg"]["vision_cfg"]
    size = image_size or vision["image_size"]
    name = "random" if random else "embedded"
    _check_size(name, size, vision["patch_size"])
    model = build_embedded(config, seed, size)
    if not random:
        state = load_asset("clip/weights.safetensors")
        resize_pos_embed(state, model)
        model.load_state_dict(state)
    transform = config["preprocess_cfg"]
    return freeze(name, model, tokenizer, transform["mean"], transform["std"], size)


def _check_size(name: str, size: int, patch: int) -> None:
    if size % patch:
        raise ConfigError(
            f"image_size {size} is no multiple of the {patch} pixels of a patch of model {name!r}; "
            f"choose {max(1, round(size / patch)) * patch}"
        )


def _open_clip(name: str, weights: str | None, image_size: int | None) -> Backbone:
    if weights is None and ":" not in name:
        raise ConfigError(f"model {name!r} has no weights; name an open_clip tag or a local file in `weights`")
    try:
        quick_gelu = get_pretrained_cfg(name, weights or "").get("quick_gelu", False)
        with torch.random.fork_rng(devices=[]):
            model = open_clip.create_model(
                name,
                pretrained=weights,
                require_pretrained=True,
                force_quick_gelu=quick_gelu,
                force_image_size=image_size,
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
    patch = getattr(model.visual, "patch_size", None)
    if image_size and patch:
        _check_size(name, height, to_2tuple(patch)[0])
    return freeze(name, model, tokenizer, transform["mean"], transform["std"], height)


def text_length(model: str) -> tuple[Callable[[str], int], int]:
    """How many tokens a text has for the tokenizer of `model`, and how many that model reads; no weights are loaded.

    Raises ConfigError for a model that open_clip does not know.
    """
    if model in ("embedded", "random"):
        text = read_config(asset("clip/model.json"))["model_cfg"]["text_cfg"]
        tokenizer = small_tokenizer(asset("clip/bpe.txt.gz"), text["context_length"])
    else:
        if ":" not in model and model not in open_clip.list_models():
            raise ConfigError(f"open_clip has no model {model!r}; {suggestion(model, open_clip.list_models())}")
        try:
            tokenizer = open_clip.get_tokenizer(model)
        except (RuntimeError, OSError, ValueError) as problem:
            raise ConfigError(f"the tokenizer of model {model!r} cannot be loaded; check name and network") from problem
    if isinstance(tokenizer, SimpleTokenizer):
        return lambda text: len(tokenizer.encode(text)) + 2, int(tokenizer.context_length)
    return lambda text: len(tokenizer.tokenizer(text)["input_ids"]), int(tokenizer.context_length)
