"""Other models than the embedded one, with weights drawn at random: OpenAI's shapes, BiomedCLIP's kind, other sizes."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import save_file

from fed_fsad.data.features import Rows
from fed_fsad.errors import ConfigError, DataError
from fed_fsad.methods.method import part_of
from fed_fsad.methods.sdmad.adapters import Adapters, run_layers
from fed_fsad.methods.sdmad.backbone import Backbone, build_embedded, freeze, load_backbone, text_length
from fed_fsad.methods.sdmad.biomedical import BertTower, TimmTower
from fed_fsad.methods.sdmad.detector import SdMad
from fed_fsad.methods.sdmad.network import SignNetwork
from fed_fsad.methods.sdmad.settings import Settings
from fed_fsad.methods.sdmad.vocabulary import Vocabulary
from tests.methods.sdmad.conftest import TINY, episode_of, samples_of

MakeRows = Callable[..., Rows]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]
PAPER = {"context": 4 * 768, "text_adapters": 4 * 2 * 768 * 384, "image_adapters": 4 * 2 * 1024 * 768}
"""2.36 M and 6.29 M: the table of the specification for ViT-L-14-336."""


def drawn(name: str, size: int) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(name)
    return freeze(name, model, open_clip.get_tokenizer(name), [0.5] * 3, [0.2] * 3, size)


def counts(network: SignNetwork) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, tensor in network.trainable().items():
        found[part_of(name)] = found.get(part_of(name), 0) + tensor.numel()
    return found


def noise(size: int, images: int = 2) -> torch.Tensor:
    return torch.rand(images, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_still_is_frozen(backbone: Backbone, vocabulary: Vocabulary, **settings: Any) -> SignNetwork:
    """With keep = 1 and without the context, an image and texts come out as the model's own, to the last bit."""
    network = SignNetwork(backbone, vocabulary, Settings.model_validate({"keep": 1.0, **settings}), 0)
    images = noise(backbone.image_size, 1)
    expected = backbone.model.encode_image((images - backbone.mean) / backbone.std, normalize=True)
    features = network.features(images)
    assert torch.equal(features["embedding"], expected)
    assert torch.equal(network.image_embeddings(features), expected)
    texts = backbone.tokenizer(list(vocabulary.texts[:3]))
    adapted = network._texts.encode(texts, None, network._text_adapters)
    assert torch.equal(adapted, backbone.model.encode_text(texts, normalize=True))
    return network


def assert_only_parts_learn(backbone: Backbone, vocabulary: Vocabulary, **settings: Any) -> None:
    """Every tensor of every chosen part gets a gradient and nothing of the model does."""
    made = SdMad(backbone, vocabulary, Settings(**settings), 0)
    samples = samples_of([("brain", ()), ("brain", ("tumour",))])
    rows = Rows(made.features(noise(backbone.image_size)), samples)
    parameters = made.trainable()
    gradients = torch.autograd.grad(made.losses(episode_of(rows)).mean(), list(parameters.values()))
    assert all(gradient.any() for gradient in gradients)
    assert not any(weight.requires_grad for weight in backbone.model.parameters())


@pytest.mark.slow
def test_vit_b_32_with_the_adapters_of_the_paper(vocabulary: Vocabulary) -> None:
    backbone = drawn("ViT-B-32-quickgelu", 224)
    network = assert_still_is_frozen(backbone, vocabulary, preset="paper", text_bottleneck=8, image_bottleneck=8)
    adapters = network.trainable()
    assert [name for name in adapters if name.endswith("down")] == [
        f"{part}/layer{layer}.down" for part in ("text_adapters", "image_adapters") for layer in (3, 6, 9, 12)
    ]
    assert_only_parts_learn(backbone, vocabulary, text_bottleneck=8, image_bottleneck=8)


@pytest.mark.slow
def test_vit_l_14_336_has_the_parameters_of_the_specification(vocabulary: Vocabulary) -> None:
    backbone = drawn("ViT-L-14-336-quickgelu", 336)
    network = assert_still_is_frozen(backbone, vocabulary, preset="paper")
    assert counts(network) == PAPER
    assert network.cached_layer == 6
    layers = {name.split(".")[0] for name in network.trainable() if "adapters" in name}
    assert layers == {f"text_adapters/layer{i}" for i in (3, 6, 9, 12)} | {
        f"image_adapters/layer{i}" for i in (6, 12, 18, 24)
    }


# ---- a text encoder of Hugging Face and an image tower of timm, as BiomedCLIP has


@pytest.fixture(scope="module")
def biomedical(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    config = {"model_type": "bert", "vocab_size": len(WORDS), "max_position_embeddings": 96, "pad_token_id": 0, **sizes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}), encoding="utf-8")
    text = CLIPTextCfg(
        hf_model_name=str(folder),
        hf_model_pretrained=False,
        hf_proj_type="mlp",
        hf_pooler_type="cls_last_hidden_state_pooler",
        context_length=80,
    )
    vision = CLIPVisionCfg(timm_model_name="vit_tiny_patch16_224", timm_pool="", timm_proj="linear", image_size=224)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CustomTextCLIP(24, vision, text)
    return freeze("biomedical", model, HFTokenizer(str(folder), context_length=80), [0.5] * 3, [0.2] * 3, 224)


def test_biomedical_towers_are_frozen_with_keep_one(biomedical: Backbone, vocabulary: Vocabulary) -> None:
    network = assert_still_is_frozen(biomedical, vocabulary, text_bottleneck=4, image_bottleneck=4)
    assert (type(network._images), type(network._texts)) == (TimmTower, BertTower)


def test_biomedical_parts_learn_and_nothing_else(biomedical: Backbone, vocabulary: Vocabulary) -> None:
    for multilevel in (False, True):
        assert_only_parts_learn(
            biomedical, vocabulary, text_bottleneck=4, image_bottleneck=4, text_layers="all", multilevel=multilevel
        )


@torch.no_grad()
def test_a_biomedical_text_is_the_same_cut_or_padded_and_context_is_words(biomedical: Backbone) -> None:
    tower = BertTower(biomedical)
    texts = ["a scan showing fog", "a scan"]
    cut, full = tower.tokenize(texts, 0), biomedical.tokenizer(texts)
    assert cut.shape[1] < full.shape[1] == 80
    expected = biomedical.model.encode_text(full, normalize=True)
    assert torch.allclose(tower.encode(cut, None, None), expected, atol=1e-5)
    word = tower._tower.transformer.get_input_embeddings()(torch.tensor([WORDS.index("b"), WORDS.index("c")]))
    named = biomedical.model.encode_text(biomedical.tokenizer([f"b c {text}" for text in texts]), normalize=True)
    assert torch.allclose(tower.encode(cut, word[None], None), named, atol=1e-5)
    with pytest.raises(DataError, match="is too long: the model reads 76 tokens"):
        tower.tokenize(["a " * 90], 4)


@torch.no_grad()
def test_biomedical_adapters_are_the_formula(biomedical: Backbone) -> None:
    tower = BertTower(biomedical)
    tokens = tower.tokenize(["a scan showing fog"], 0)
    adapters = Adapters("text_adapters", tower.width, 4, (1, 3), 0.9, 0)
    x = tower._tower.transformer.embeddings(tokens)
    for layer, block in enumerate(tower.blocks, start=1):
        out = block(x)
        x = adapters.shift(layer, x, out[0] if isinstance(out, tuple) else out)
    expected = torch.nn.functional.normalize(tower._tower.proj(x[:, 0]), dim=-1)
    assert torch.allclose(tower.encode(tokens, None, adapters), expected, atol=1e-5)
    assert torch.equal(tower.encode(tokens, None, None), biomedical.model.encode_text(tokens, normalize=True))
    image_tower = TimmTower(biomedical)
    entering, _ = image_tower.frozen(noise(224), 11)
    moved = Adapters("image_adapters", image_tower.width, 4, (11, 12), 0.9, 0)
    left = run_layers(image_tower.blocks, entering, moved, first=11)
    trunk: Any = biomedical.model.visual
    middle = moved.shift(11, entering, trunk.trunk.blocks[10](entering))
    last = moved.shift(12, middle, trunk.trunk.blocks[11](middle))
    expected = torch.nn.functional.normalize(trunk.head(trunk.trunk.norm(last)[:, 0]), dim=-1)
    assert torch.allclose(image_tower.pooled(left[12]), expected, atol=1e-5)


def test_towers_of_an_unknown_kind_are_refused(biomedical: Backbone) -> None:
    odd = copy.copy(biomedical.model)
    odd.text = copy.copy(biomedical.model.text)
    odd.text.transformer = torch.nn.Linear(2, 2)
    other = freeze("odd", odd, biomedical.tokenizer, [0.5] * 3, [0.2] * 3, 224)
    with pytest.raises(ConfigError, match="not of the BERT family"):
        BertTower(other)
    convolutional = CustomTextCLIP(
        24,
        CLIPVisionCfg(timm_model_name="resnet18", timm_pool="avg", timm_proj="linear", image_size=64),
        CLIPTextCfg(**TINY["model_cfg"]["text_cfg"]),
    )
    with pytest.raises(ConfigError, match="no vision transformer; choose a ViT"):
        TimmTower(freeze("resnet", convolutional, biomedical.tokenizer, [0.5] * 3, [0.2] * 3, 64))


# ---- image sizes


def test_another_image_size_resizes_the_positions_and_nothing_else() -> None:
    own, larger = load_backbone("embedded", None, 0), load_backbone("embedded", None, 0, 144)
    assert (own.image_size, larger.image_size) == (96, 144)
    states = own.model.state_dict(), larger.model.state_dict()
    changed = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert changed == {"visual.positional_embedding"}
    assert states[1]["visual.positional_embedding"].shape == (1 + 12 * 12, 128)
    grid = states[0]["visual.positional_embedding"][1:].T.reshape(1, 128, 8, 8)
    wide = torch.nn.functional.interpolate(grid, size=(12, 12), mode="bicubic", antialias=True)
    found = states[1]["visual.positional_embedding"][1:]
    assert torch.allclose(found, wide.flatten(2)[0].T, atol=1e-6)
    assert own.fingerprint != larger.fingerprint
    assert torch.isfinite(larger.model.encode_image(noise(144))).all()


def test_a_local_model_takes_another_image_size(tmp_path: Path) -> None:
    config = copy.deepcopy(TINY)
    config["model_cfg"]["text_cfg"]["vocab_size"] = 49408
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(build_embedded(config, 7).state_dict(), tmp_path / "open_clip_model.safetensors")
    loaded = load_backbone(f"local-dir:{tmp_path}", None, 0, 40)
    assert loaded.image_size == 40
    assert loaded.model.encode_image(noise(40)).shape == (2, 24)
    with pytest.raises(ConfigError, match=r"image_size 41 is no multiple of the 8 pixels .* choose 40"):
        load_backbone(f"local-dir:{tmp_path}", None, 0, 41)


def test_a_size_that_patches_do_not_fill_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"image_size 100 is no multiple of the 12 pixels .* choose 96"):
        load_backbone("random", None, 0, 100)


def test_the_length_of_a_text_is_known_without_weights() -> None:
    length, limit = text_length("ViT-B-32")
    tokens = open_clip.get_tokenizer("ViT-B-32")(["a chest x-ray image"])
    assert (length("a chest x-ray image"), limit) == (int(tokens.count_nonzero()), 77)
    assert text_length("embedded")[1] == 40
    with pytest.raises(ConfigError, match="no model 'ViT-Z-99'; did you mean"):
        text_length("ViT-Z-99")
