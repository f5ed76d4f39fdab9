import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

from fed_fsad.errors import ConfigError, DataError
from fed_fsad.methods.sdmad.adapters import Adapters, layers_of, run_layers
from fed_fsad.methods.sdmad.backbone import Backbone, freeze
from fed_fsad.methods.sdmad.context import Context
from fed_fsad.methods.sdmad.network import SignNetwork
from fed_fsad.methods.sdmad.settings import Settings
from fed_fsad.methods.sdmad.towers import ImageTower, TextTower
from fed_fsad.methods.sdmad.vocabulary import Vocabulary
from tests.methods.sdmad.conftest import TINY

TEXTS = ["a brain MRI image showing swelling", "an image", "a brain MRI image showing a thin dark ring"]


def full_tokens(backbone: Backbone, texts: list[str]) -> torch.Tensor:
    return backbone.tokenizer(texts)


@pytest.fixture(scope="module")
def vit_b_32() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-B-32-quickgelu")
    return freeze("ViT-B-32", model, open_clip.get_tokenizer("ViT-B-32"), [0.5] * 3, [0.2] * 3, 224)


@pytest.mark.parametrize("which", ["backbone", "vit_b_32"])
@torch.no_grad()
def test_keep_one_is_the_frozen_model_bit_for_bit(which: str, request: pytest.FixtureRequest) -> None:
    model: Backbone = request.getfixturevalue(which)
    images = torch.rand(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))
    image_tower, text_tower = ImageTower(model), TextTower(model)
    tokens, embedding = image_tower.frozen(images, 2)
    expected = model.model.encode_image((images - model.mean) / model.std, normalize=True)
    assert torch.equal(embedding, expected)
    depth = len(image_tower.blocks)
    still = Adapters("image_adapters", image_tower.width, 8, range(2, depth + 1), 1.0, 0)
    left = run_layers(image_tower.blocks, tokens, still, first=2)
    assert list(left) == list(range(2, depth + 1))
    assert torch.equal(image_tower.pooled(left[depth]), expected)
    text = full_tokens(model, TEXTS)
    still = Adapters("text_adapters", text_tower.width, 8, range(1, len(text_tower.blocks) + 1), 1.0, 0)
    assert torch.equal(text_tower.encode(text, None, still), model.model.encode_text(text, normalize=True))


@torch.no_grad()
def test_an_adapter_is_the_formula_at_every_chosen_layer(backbone: Backbone) -> None:
    tower = ImageTower(backbone)
    adapters = Adapters("image_adapters", tower.width, 8, (2, 3), 0.9, 0)
    tokens, _ = tower.frozen(torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(1)), 2)
    x = tokens
    for layer in (2, 3):
        down, up = (adapters.named()[f"image_adapters/layer{layer}.{kind}"] for kind in ("down", "up"))
        hidden = x @ down.T
        hidden = torch.where(hidden > 0, hidden, 0.01 * hidden) @ up.T
        shift = torch.where(hidden > 0, hidden, 0.01 * hidden)
        x = 0.9 * tower.blocks[layer - 1](x) + 0.1 * shift
    visual = backbone.model.visual
    expected = F.normalize(visual.ln_post(x)[:, 0] @ visual.proj, dim=-1)
    found = run_layers(tower.blocks, tokens, adapters, first=2)
    assert torch.allclose(tower.pooled(found[3]), expected, atol=1e-6)


@torch.no_grad()
def test_cutting_to_the_longest_text_changes_no_feature(backbone: Backbone) -> None:
    tower = TextTower(backbone)
    cut = tower.tokenize(TEXTS, 0)
    full = full_tokens(backbone, TEXTS)
    assert cut.shape[1] < full.shape[1]
    assert cut[:, -1].count_nonzero() == 1
    expected = backbone.model.encode_text(full, normalize=True)
    assert torch.allclose(tower.encode(cut, None, None), expected, atol=1e-6)


@torch.no_grad()
def test_context_made_of_words_is_the_text_with_those_words(backbone: Backbone) -> None:
    tower = TextTower(backbone)
    words = full_tokens(backbone, ["dim grey"])
    inner = words[0, 1 : int(words[0].argmax())]
    context = backbone.model.token_embedding(inner)
    found = tower.encode(tower.tokenize(TEXTS, len(context)), context[None], None)
    expected = backbone.model.encode_text(full_tokens(backbone, [f"dim grey {text}" for text in TEXTS]), normalize=True)
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_text_too_long_beside_the_context_is_refused_by_name(backbone: Backbone) -> None:
    tower = TextTower(backbone)
    assert tower.tokenize(["x" * 70], 8).shape == (1, 72)
    with pytest.raises(DataError, match=r"'x{70}' is too long: the model reads 71 tokens"):
        tower.tokenize(["short", "x" * 70], 9)
    with pytest.raises(DataError, match="too long"):
        tower.tokenize(["x" * 500], 0)


@pytest.mark.parametrize(
    ("layers", "depth", "expected"),
    [("all", 3, (1, 2, 3)), ("last 2", 4, (3, 4)), ("every 3", 12, (3, 6, 9, 12)), ("every 2", 5, (2, 4))],
)
def test_layers_by_rule(layers: str, depth: int, expected: tuple[int, ...]) -> None:
    assert layers_of(layers, depth) == expected


def test_layers_deeper_than_the_model_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not exist in a transformer of 4"):
        layers_of("last 5", 4)


def test_parameters_of_the_paper_on_vit_b_32(vit_b_32: Backbone, vocabulary: Vocabulary) -> None:
    settings = Settings(text_layers="every 3", text_bottleneck=256, image_layers="every 3", image_bottleneck=384)
    parameters = SignNetwork(vit_b_32, vocabulary, settings, 0).trainable()
    counts: dict[str, int] = {}
    for name, tensor in parameters.items():
        part = name.split("/")[0]
        counts[part] = counts.get(part, 0) + tensor.numel()
    assert counts == {"context": 4 * 512, "text_adapters": 4 * 2 * 512 * 256, "image_adapters": 4 * 2 * 768 * 384}


def test_initial_values_follow_from_the_seed_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (Adapters("text_adapters", 16, 4, (1, 2), 0.9, seed).named() for seed in (0, 0, 1))
    context = [Context([""], 3, 16, seed).named()["context/tokens"] for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(context[0], context[1])
    assert not torch.equal(context[0], context[2])
    assert not torch.equal(one["text_adapters/layer1.down"], one["text_adapters/layer2.down"])


def test_a_convolutional_image_tower_is_refused(backbone: Backbone) -> None:
    config = TINY["model_cfg"]
    vision = CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=32)
    model = CLIP(config["embed_dim"], vision, CLIPTextCfg(**config["text_cfg"]))
    with pytest.raises(ConfigError, match="choose a ViT"):
        ImageTower(freeze("convolutional", model, backbone.tokenizer, [0.5] * 3, [0.2] * 3, 32))


@pytest.mark.parametrize("change", [{"no_causal_mask": True}, {"pool_type": "last"}, {"embed_cls": True}])
def test_a_text_tower_that_context_cannot_enter_is_refused(backbone: Backbone, change: dict[str, object]) -> None:
    config = TINY["model_cfg"]
    text = CLIPTextCfg(**(config["text_cfg"] | change))
    model = CustomTextCLIP(config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]), text)
    with pytest.raises(ConfigError, match="choose a CLIP model"):
        TextTower(freeze("other", model, backbone.tokenizer, [0.5] * 3, [0.2] * 3, 24))


@torch.no_grad()
def test_a_text_tower_kept_apart_from_the_model_serves_as_well(backbone: Backbone) -> None:
    config = TINY["model_cfg"]
    vision, text = CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"])
    model = CustomTextCLIP(config["embed_dim"], vision, text, quick_gelu=True)
    tower = TextTower(freeze("custom", model, backbone.tokenizer, [0.5] * 3, [0.2] * 3, 24))
    tokens = full_tokens(backbone, TEXTS)
    assert torch.equal(tower.encode(tokens, None, None), model.encode_text(tokens, normalize=True))
