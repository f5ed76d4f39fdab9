import copy
import hashlib
import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
import yaml
from safetensors.torch import save_file

import fed_fsad.assets
from fed_fsad.errors import ConfigError
from fed_fsad.methods import build, settings_type
from fed_fsad.methods.method import part_of
from fed_fsad.methods.sdmad.backbone import Backbone, build_embedded, freeze, load_backbone
from fed_fsad.methods.sdmad.vocabulary import build_vocabulary
from tests.methods.sdmad.conftest import BOOK, TINY


def test_the_initialisation_follows_from_the_seed_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    one, same, other = (build_embedded(TINY, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["visual.conv1.weight"], other["visual.conv1.weight"])


def test_the_tokenizer_has_the_vocabulary_of_the_config(backbone: Backbone) -> None:
    tokens = backbone.tokenizer(["an image in"])
    assert tokens.max() == TINY["model_cfg"]["text_cfg"]["vocab_size"] - 1
    assert tokens.shape == (1, 80)
    # start, a, n, "im", "age", "in" as "i" and "n", end: merges shorten what they know
    assert tokens.count_nonzero() == 8


def test_the_fingerprint_covers_weights_and_transform(backbone: Backbone) -> None:
    again = freeze("again", backbone.model, backbone.tokenizer, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4], 24)
    shifted = freeze("shifted", backbone.model, backbone.tokenizer, [0.5, 0.4, 0.2], [0.2, 0.3, 0.4], 24)
    changed = copy.deepcopy(backbone.model)
    with torch.no_grad():
        changed.get_parameter("ln_final.bias")[0] += 1e-3
    moved = freeze("moved", changed, backbone.tokenizer, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4], 24)
    assert backbone.fingerprint == again.fingerprint
    assert len({backbone.fingerprint, shifted.fingerprint, moved.fingerprint}) == 3


@pytest.fixture
def assets(tmp_path: Path, merges: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel's assets with the tiny model: half-precision weights of seed 7 and their checksum."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps(TINY))
    shutil.copy(merges, folder / "bpe.txt.gz")
    weights = folder / "weights.safetensors"
    save_file({name: weight.half() for name, weight in build_embedded(TINY, 7).state_dict().items()}, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  clip/weights.safetensors\n")
    monkeypatch.setattr(fed_fsad.assets, "ROOT", tmp_path)
    return tmp_path


def test_the_embedded_model_has_the_weights_of_the_wheel_and_random_has_none(assets: Path) -> None:
    embedded, random = load_backbone("embedded", None, 0), load_backbone("random", None, 0)
    trained = build_embedded(TINY, 7).half().float().state_dict()
    assert all(torch.equal(weight, trained[name]) for name, weight in embedded.model.state_dict().items())
    drawn = build_embedded(TINY, 0).state_dict()
    assert all(torch.equal(weight, drawn[name]) for name, weight in random.model.state_dict().items())
    assert embedded.image_size == 24
    assert embedded.std.flatten().tolist() == pytest.approx(TINY["preprocess_cfg"]["std"])


def test_a_method_is_built_from_its_settings(assets: Path, tmp_path: Path) -> None:
    signs = tmp_path / "mine.yaml"
    signs.write_text(yaml.safe_dump(BOOK.model_dump(mode="json")))
    settings = settings_type("sdmad").model_validate({"signs": [str(signs)], "image_layers": "last 1"})
    made, again = build("sdmad", settings, 3), build("sdmad", settings, 3)
    assert {part_of(name) for name in made.trainable()} == {"context", "text_adapters", "image_adapters"}
    assert all(torch.equal(made.trainable()[name], again.trainable()[name]) for name in made.trainable())
    assert set(made.features(torch.zeros(1, 3, 24, 24))) == {"embedding", "tokens"}
    assert made.model_id == again.model_id


def test_a_local_open_clip_folder_is_loaded_with_its_transform(tmp_path: Path) -> None:
    config = copy.deepcopy(TINY)
    config["model_cfg"]["text_cfg"]["vocab_size"] = 49408
    model = build_embedded(config, 7)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    before = torch.get_rng_state()
    loaded = load_backbone(f"local-dir:{tmp_path}", None, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.image_size == 24
    assert loaded.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=80)(["an image"])
    assert torch.equal(loaded.tokenizer(["an image"]), tokens)
    assert torch.equal(loaded.model.encode_text(tokens), model.eval().encode_text(tokens))


@pytest.mark.parametrize(
    ("name", "weights", "reason"),
    [
        ("ViT-B-32", None, "has no weights"),
        ("ViT-Z-99", "openai", "cannot load model 'ViT-Z-99'"),
        ("ViT-B-32", "no_such_tag", "cannot load model 'ViT-B-32' with weights 'no_such_tag'"),
        ("local-dir:/nowhere", None, "cannot load model"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_clear_sentence(name: str, weights: str | None, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load_backbone(name, weights, 0)
    assert "\n" not in str(caught.value)


def test_two_lists_of_one_task_are_refused() -> None:
    with pytest.raises(ConfigError, match="two sign lists describe task 'brain'"):
        build_vocabulary([BOOK, BOOK])
