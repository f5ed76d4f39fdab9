import shutil
from pathlib import Path
from statistics import fmean

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file

import fed_fsad.assets as assets
from fed_fsad.assets import SUMS, asset, load_asset, read_sums
from fed_fsad.data.signs import bundled_signs, load_signs
from fed_fsad.errors import CheckpointError
from fed_fsad.methods.d24fad import Settings, build
from fed_fsad.methods.sdmad.backbone import load_backbone, read_config, small_tokenizer
from fed_fsad.methods.sdmad.vocabulary import build_vocabulary
from pretraining.card import read_card
from pretraining.figures import OTHERS
from pretraining.measure import PRODUCT, detection_figures, frozen, load_teacher, phantom_detection_sets
from pretraining.protocol import validation_seed
from pretraining.real import real_detection_sets
from pretraining.zero_shot import averaged, category_sets, zero_shot_figures

WEIGHTS = ("teacher/weights.safetensors", "student/weights.safetensors", "clip/weights.safetensors")
MAKERS = {"teacher": "distil"}
CONTEXT_TOKENS = 4
FRESH_SEED, SAMPLING = 7, 0.07
"""Phantoms that neither a choice nor a card has seen, and how far a small sample's mean may lie from the card's."""


def _tokenizer() -> SimpleTokenizer:
    return small_tokenizer(asset("clip/bpe.txt.gz"), 40)


def test_a_missing_file_is_one_clear_error() -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.bin is missing; install fed_fsad again"):
        asset("nothing.bin")


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_load_as_float32_what_the_file_holds(weights: str) -> None:
    loaded, stored = load_asset(weights), load_file(asset(weights))
    assert loaded.keys() == stored.keys()
    for name, value in loaded.items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, stored[name].to(value.dtype))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("place", [0, 1000, -1])
def test_one_changed_byte_is_noticed(weights: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / weights
    copy.parent.mkdir()
    content = bytearray(asset(weights).read_bytes())
    content[place] ^= 1
    copy.write_bytes(content)
    shutil.copy(asset(SUMS), tmp_path / SUMS)
    monkeypatch.setattr(assets, "ROOT", tmp_path)
    with pytest.raises(CheckpointError, match="is not the one in SHA256SUMS"):
        load_asset(weights)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_card_beside_the_weights_is_theirs(weights: str) -> None:
    card = read_card(asset(weights).with_name("card.md"))
    assert card["sha256"] == read_sums(asset(SUMS))[weights]
    assert card["bytes"] == asset(weights).stat().st_size
    name = str(Path(weights).parent)
    assert card["command"].startswith(f"python -m pretraining {MAKERS.get(name, name)} ")
    assert card["cpu_seconds"] > 0


def test_the_embedded_student_is_of_the_embedded_teacher() -> None:
    """Whoever replaces the teacher makes the student again: python -m pretraining student."""
    card = read_card(asset("student/card.md"))
    assert card["plan"]["begun"] == read_sums(asset(SUMS))["teacher/weights.safetensors"]
    stored = load_file(asset("student/weights.safetensors"))
    begun = build(Settings(student="light"), 0).trainable()
    for name, tensor in begun.items():
        if name.startswith("affine/"):
            assert torch.equal(tensor, stored[f"student.{name.removeprefix('affine/')}"].float())


def test_all_weights_together_stay_small() -> None:
    assert sum(asset(weights).stat().st_size for weights in WEIGHTS) <= 8 * 2**20


def test_the_embedded_teacher_gives_four_stages() -> None:
    stages = load_teacher().eval()(torch.zeros(2, 3, 96, 96))
    assert [tuple(stage.shape) for stage in stages] == [(2, 24, 24, 24), (2, 48, 12, 12), (2, 96, 6, 6), (2, 192, 3, 3)]


def test_the_embedded_clip_embeds_images_and_texts() -> None:
    backbone = load_backbone("embedded", None, 0)
    width = read_config(asset("clip/model.json"))["model_cfg"]["embed_dim"]
    tokens = backbone.tokenizer(["a normal brain MRI image", "a chest X-ray image showing a wide heart shadow"])
    assert backbone.model.encode_image(torch.zeros(3, 3, 96, 96)).shape == (3, width)
    assert backbone.model.encode_text(tokens).shape == (2, width)


@pytest.mark.parametrize("name", bundled_signs())
def test_every_bundled_sign_is_read_whole_and_leaves_room_for_context(name: str) -> None:
    tokenizer = _tokenizer()
    for text in build_vocabulary([load_signs(name)]).texts:
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens).replace(" ", "") == text.lower().replace(" ", "")
        assert len(tokens) + 2 <= tokenizer.context_length - CONTEXT_TOKENS


def test_the_vocabulary_fits_the_model_and_holds_most_sign_words_whole() -> None:
    tokenizer = _tokenizer()
    assert read_config(asset("clip/model.json"))["model_cfg"]["text_cfg"]["vocab_size"] == tokenizer.vocab_size
    words = {w for name in bundled_signs() for t in build_vocabulary([load_signs(name)]).texts for w in t.split()}
    whole = [word for word in words if word.isalpha() and len(tokenizer.encode(word)) == 1]
    assert len(whole) > 0.6 * len(words)


@pytest.mark.slow
def test_the_teachers_card_holds_on_fresh_phantoms() -> None:
    stated = read_card(asset("teacher/card.md"))["figures"]["Phantom organs that choices looked at"]["mean"]
    sets = phantom_detection_sets(OTHERS, validation_seed(FRESH_SEED), 40, PRODUCT.image_size)
    found = averaged(detection_figures(frozen(load_teacher()), sets, FRESH_SEED, ("default", "patch")))
    for figure in ("default", "default pixel", "patch"):
        assert found[figure] == pytest.approx(stated[figure], abs=SAMPLING)
        assert found[figure] > stated[f"untrained {figure}"]


@pytest.mark.slow
def test_clips_card_holds_on_fresh_phantoms() -> None:
    stated = read_card(asset("clip/card.md"))["figures"]["Seen kinds, zero-shot"]["mean"]
    backbone = load_backbone("embedded", None, 0)
    sets = category_sets(FRESH_SEED, 8, backbone.image_size, held_out=False)
    found = averaged(zero_shot_figures(backbone.model, backbone.tokenizer, backbone.mean, backbone.std, sets))
    for figure in ("binary", "category"):
        assert found[figure] == pytest.approx(stated[figure], abs=SAMPLING)
        assert found[figure] > stated[f"untrained {figure}"]


@pytest.mark.slow
@pytest.mark.real_data
def test_the_teachers_figures_on_real_images_are_those_of_its_card(shared: Path) -> None:
    card = read_card(asset("teacher/card.md"))
    stated, teacher = card["figures"]["Real images, never looked at"], frozen(load_teacher())
    sets = {seed: real_detection_sets(shared, PRODUCT.image_size, seed) for seed in card["seeds"]}
    found = [detection_figures(teacher, sets[seed], seed, ("default", "patch")) for seed in sets]
    for name, figures in found[0].items():
        for score in figures:
            assert fmean(run[name][score] for run in found) == pytest.approx(stated[name][score], abs=0.005)
