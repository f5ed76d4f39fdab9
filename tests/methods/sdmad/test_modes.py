"""Who shares a context, what stands in for signs, patches of several layers, presets: the switches of the method."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from fed_fsad.data.features import Rows
from fed_fsad.errors import ConfigError, DataError
from fed_fsad.methods.method import part_of, piece_of
from fed_fsad.methods.sdmad.backbone import Backbone
from fed_fsad.methods.sdmad.context import Context
from fed_fsad.methods.sdmad.detector import SdMad
from fed_fsad.methods.sdmad.network import SignNetwork
from fed_fsad.methods.sdmad.settings import Settings
from fed_fsad.methods.sdmad.towers import ImageTower, TextTower
from fed_fsad.methods.sdmad.vocabulary import Vocabulary, build_vocabulary, name_texts
from fed_fsad.methods.training import train
from tests.methods.sdmad.conftest import BOOK, LABELS, episode_of

Make = Callable[..., SdMad]
MakeRows = Callable[..., Rows]
BRAIN = [label for label in LABELS if label[0] == "brain"]
OTHER = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
PIECES = {
    "shared": {"context"},
    "per_modality": {"context/brain MRI", "context/chest X-ray"},
    "per_category": {
        *(f"context/brain: {name}" for name in ("normal", "tumour", "bleed", "cyst")),
        *(f"context/chest: {name}" for name in ("normal", "opacity", "effusion")),
    },
}


def mode(method: Make, context: str, **settings: object) -> SdMad:
    withheld = settings.get("withheld", ())
    assert isinstance(withheld, tuple)
    vocabulary = build_vocabulary([BOOK], context, withheld=withheld)  # type: ignore[arg-type]
    return method(vocabulary=vocabulary, context=context, trainable=("context",), **settings)


@pytest.mark.parametrize("context", PIECES)
def test_there_is_one_context_for_each_that_owns_one(method: Make, context: str) -> None:
    made = mode(method, context)
    assert {piece_of(name) for name in made.trainable()} == PIECES[context]
    assert {part_of(name) for name in made.trainable()} == {"context"}
    assert {tuple(tensor.shape) for tensor in made.trainable().values()} == {(4, 16)}


@pytest.mark.parametrize("context", ["per_category", "per_modality"])
def test_as_long_as_all_contexts_are_alike_the_loss_is_that_of_one(method: Make, rows: MakeRows, context: str) -> None:
    made, shared = mode(method, context), mode(method, "shared")
    images = rows(made)
    assert torch.allclose(made.losses(episode_of(images)), shared.losses(episode_of(images)), atol=1e-5)
    brain = rows(made, BRAIN)
    banks = [(one, one.fit_support(brain.select([]), "brain")) for one in (made, shared)]
    found, plain = (one.score(brain.features, bank).categories for one, bank in banks)
    assert found is not None
    assert plain is not None
    assert torch.allclose(found, plain, atol=1e-5)


@torch.no_grad()
def test_a_category_is_read_with_its_own_context(method: Make) -> None:
    made = mode(method, "per_category")
    signs = made._vocabulary.task("brain")
    before = made._network.sign_embeddings([signs])["brain"]
    made.trainable()["context/brain: bleed/tokens"].copy_(OTHER)
    changed = (made._network.sign_embeddings([signs])["brain"] - before).abs().amax(dim=1) > 1e-3
    assert torch.equal(changed, signs.member[2]), "swelling is a sign of tumour too, which reads it as before"
    assert sorted(signs.signs).count("swelling") == 2


@torch.no_grad()
def test_a_modality_is_read_with_its_own_context(method: Make) -> None:
    made = mode(method, "per_modality")
    tables = [made._vocabulary.task(name) for name in ("brain", "chest")]
    before = made._network.sign_embeddings(tables)
    made.trainable()["context/chest X-ray/tokens"].copy_(OTHER)
    after = made._network.sign_embeddings(tables)
    assert torch.allclose(before["brain"], after["brain"], atol=1e-6)
    assert not torch.allclose(before["chest"], after["chest"], atol=1e-3)


def test_contexts_of_what_no_image_shows_are_named_and_do_not_move(method: Make, rows: MakeRows) -> None:
    made = mode(method, "per_category")
    images = rows(made, [("brain", ()), ("brain", ("tumour",)), ("brain", ())])
    still = {name: value.clone() for name, value in made.trainable().items()}
    untouched = made.untouched(images.samples)
    assert {piece_of(name) for name in untouched} == PIECES["per_category"] - {
        "context/brain: normal",
        "context/brain: tumour",
    }
    train(made, made._settings, images, parts={"context"}, stream=(0, "north", 1), steps=2)
    moved = {name for name, value in made.trainable().items() if not torch.equal(value, still[name])}
    assert moved == set(still) - untouched


def test_a_shared_context_and_adapters_are_always_touched(method: Make, rows: MakeRows) -> None:
    made = method()
    assert made.untouched(rows(made, [("brain", ())]).samples) == frozenset()


def test_images_that_cannot_be_trained_on_are_named_before_training(method: Make, rows: MakeRows) -> None:
    made = method()
    with pytest.raises(DataError, match=r"'bled' of task 'brain' has no signs .*nearest: 'bleed'"):
        made.untouched(rows(made, [("brain", ()), ("brain", ("bled",))]).samples)


def test_a_withheld_category_has_no_context_and_borrows_that_of_normal(method: Make, rows: MakeRows) -> None:
    made = mode(method, "per_category", withheld=("cyst",))
    assert {piece_of(name) for name in made.trainable()} == PIECES["per_category"] - {"context/brain: cyst"}
    brain = rows(made, BRAIN)
    assert made.score(brain.features, made.fit_support(brain, "brain")).names == ("tumour", "bleed", "cyst")


def test_odd_letters_of_a_category_do_not_reach_the_wire() -> None:
    (name,) = Context(["chest: a|b/c\n"], 2, 4, 0).named()
    assert name == "context/chest: a_b_c_/tokens"


# ---- names in place of signs


def test_names_speak_in_place_of_signs(method: Make, rows: MakeRows) -> None:
    vocabulary = build_vocabulary([BOOK], signs_as="names")
    assert vocabulary.tasks["chest"].signs == ("normal", "opacity", "effusion")
    made = method(vocabulary=vocabulary, signs_as="names", trainable=("image_adapters",), keep=1.0, selection="none")
    brain = rows(made, BRAIN)
    found = made.score(brain.features, made.fit_support(brain.select([]), "brain")).categories
    baselines = made.baselines(brain.features, brain, "brain")
    plain = baselines["zero_shot_names"].categories
    assert set(baselines) == {"zero_shot_names", "linear_probe"}, "no sign speaks here"
    assert found is not None
    assert plain is not None
    assert torch.allclose(found, plain, atol=1e-5)


def test_names_are_spelled_in_words() -> None:
    assert name_texts("CT", ["lung_cancer"]) == ["a normal CT image", "a CT image with lung cancer"]


def test_the_texts_id_tells_every_vocabulary_apart(method: Make) -> None:
    changed = BOOK.model_copy(deep=True)
    shorter = {name: entry.model_dump() for name, entry in changed.tasks.items()}
    shorter["brain"]["normal"] = shorter["brain"]["normal"][:2]
    books = [build_vocabulary([BOOK]), build_vocabulary([BOOK]), build_vocabulary([type(BOOK).model_validate(shorter)])]
    others = [build_vocabulary([BOOK], "per_category"), build_vocabulary([BOOK], signs_as="names")]
    ids = [method(vocabulary=vocabulary).texts_id for vocabulary in [*books, *others]]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


# ---- patches


@torch.no_grad()
def test_multilevel_logits_are_the_formula(method: Make, rows: MakeRows) -> None:
    made = method(multilevel=True, image_layers="last 2")
    images = rows(made)
    network = made._network
    tower = network._images
    assert isinstance(tower, ImageTower)
    signs = made._vocabulary.task("brain")
    texts = network.sign_embeddings([signs])["brain"]
    found = network.logits(network.image_embeddings(images.features), texts)
    adapters = network._image_adapters
    assert adapters is not None
    x, expected = images.features["tokens"], torch.zeros(8, len(signs.signs))
    for layer in (2, 3):
        x = adapters.shift(layer, x, tower.blocks[layer - 1](x))
        patches = torch.nn.functional.normalize(tower._visual.ln_post(x)[:, 1:] @ tower._visual.proj, dim=-1)
        for image in range(8):
            for sign in range(len(signs.signs)):
                expected[image, sign] += max(float(patch @ texts[sign]) for patch in patches[image]) / 2
    expected = network._scale * (expected + tower.pooled(x) @ texts.T) / 2
    assert torch.allclose(found, expected, atol=1e-4)


def test_multilevel_without_image_adapters_looks_at_the_last_layer(method: Make, rows: MakeRows) -> None:
    made = method(multilevel=True, trainable=("context",))
    images = rows(made)
    assert made._network.cached_layer == 3
    assert made._network.image_embeddings(images.features).shape == (8, 1 + 9, 24)
    losses = made.losses(episode_of(images))
    (gradient,) = torch.autograd.grad(losses.mean(), [made.trainable()["context/tokens"]])
    assert gradient.any()
    alone = made.losses(episode_of(images.select([3])))
    assert torch.allclose(losses[3], alone[0], atol=1e-5)


# ---- presets


def test_a_preset_fills_in_what_is_not_stated() -> None:
    paper = Settings.model_validate({"preset": "paper", "text_bottleneck": 7})
    assert (paper.text_layers, paper.image_layers) == ("quarters", "quarters")
    assert (paper.text_bottleneck, paper.image_bottleneck) == (7, 768)
    assert Settings.model_validate(paper.model_dump()) == paper
    assert Settings.model_validate({"preset": "federated"}) == Settings()
    with pytest.raises(ValidationError, match="federated"):
        Settings.model_validate({"preset": ["paper"]})


# ---- local parts by name


def test_local_parts_must_exist_and_leave_something_to_send() -> None:
    from fed_fsad.methods import build

    with pytest.raises(ConfigError, match=r"sdmad has no part 'contexts'; did you mean 'context'\?"):
        build("sdmad", Settings(model="random", local_parts=("contexts",)), 0)
    with pytest.raises(ConfigError, match="all parts stay at the sites; leave one out"):
        build("sdmad", Settings(model="random", trainable=("context",), local_parts=("context",)), 0)


def test_towers_of_the_tiny_model_are_those_of_clip(backbone: Backbone, vocabulary: Vocabulary) -> None:
    network = SignNetwork(backbone, vocabulary, Settings(text_bottleneck=8, image_bottleneck=8), 0)
    assert (type(network._images), type(network._texts)) == (ImageTower, TextTower)
