import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fed_fsad.data.features import Rows
from fed_fsad.data.signs import SignBook
from fed_fsad.errors import ConfigError, DataError
from fed_fsad.methods.method import part_of
from fed_fsad.methods.sdmad.backbone import Backbone
from fed_fsad.methods.sdmad.detector import SdMad
from fed_fsad.methods.sdmad.vocabulary import build_vocabulary
from tests.methods.sdmad.conftest import BOOK, LABELS, episode_of
from tests.reference.sdmad import stage_one

Make = Callable[..., SdMad]
MakeRows = Callable[..., Rows]
BRAIN = [label for label in LABELS if label[0] == "brain"]


@torch.no_grad()
def reference_loss(method: SdMad, rows: Rows, place: int) -> float:
    """One image's loss from single text encodings, sign by sign, in loops."""
    network = method._network
    sample = rows.samples[place]
    entry = BOOK[sample.task]
    image = network.image_embeddings({name: tensor[[place]] for name, tensor in rows.features.items()})[0]

    def mean_logit(signs: tuple[str, ...]) -> float:
        total = 0.0
        for sign in signs:
            tokens = network._texts.tokenize([f"a {entry.modality} image showing {sign}"], 4)
            text = network._texts.encode(tokens, method.trainable()["context/tokens"][None], network._text_adapters)[0]
            total += (network._scale * (image @ text)).item()
        return total / len(signs)

    g = [mean_logit(entry.normal), *(mean_logit(signs) for signs in entry.categories.values())]
    return stage_one(g, [name in sample.categories for name in entry.categories], method._settings.inter_weight)


def test_the_loss_of_a_mixed_batch_is_the_formula_per_image(method: Make, rows: MakeRows) -> None:
    made = method(inter_weight=0.5)
    images = rows(made)
    losses = made.losses(episode_of(images)).tolist()
    for place in (0, 2, 3):
        assert losses[place] == pytest.approx(reference_loss(made, images, place), rel=1e-4)


def test_the_gradient_of_an_image_does_not_depend_on_its_batch(method: Make, rows: MakeRows) -> None:
    made = method()
    images = rows(made)
    parameters = list(made.trainable().values())
    together = torch.autograd.grad(made.losses(episode_of(images))[3], parameters)
    alone = torch.autograd.grad(made.losses(episode_of(images.select([3]))).sum(), parameters)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(together, alone, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in alone)


@pytest.mark.parametrize(
    "parts", [("context",), ("text_adapters",), ("image_adapters",), ("context", "image_adapters")]
)
def test_only_the_chosen_parts_are_there_and_get_gradients(
    method: Make, rows: MakeRows, backbone: Backbone, parts: tuple[str, ...]
) -> None:
    made = method(trainable=parts)
    gradients = torch.autograd.grad(made.losses(episode_of(rows(made))).mean(), list(made.trainable().values()))
    assert {part_of(name) for name in made.trainable()} == set(parts)
    assert all(gradient.any() for gradient in gradients)
    assert not any(weight.requires_grad for weight in backbone.model.parameters())


def test_training_lowers_the_loss(method: Make, rows: MakeRows) -> None:
    made = method()
    episode = episode_of(rows(made))
    parameters = list(made.trainable().values())
    optimiser = torch.optim.Adam(parameters, lr=1e-2, betas=(0.5, 0.999))
    first = made.losses(episode).mean()
    for _ in range(15):
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(made.losses(episode).mean(), parameters), strict=True
        ):
            parameter.grad = gradient
        optimiser.step()
    assert made.losses(episode).mean() < 0.7 * first


def test_scores_do_not_change_with_batch_or_order(method: Make, rows: MakeRows) -> None:
    made = method()
    images = rows(made, BRAIN)
    bank = made.fit_support(images, "brain")
    whole = made.score(images.features, bank)
    turned = made.score(images.select([5, 4, 3, 2, 1, 0]).features, bank)
    single = torch.cat([made.score(images.select([i]).features, bank).image for i in range(len(images))])
    assert whole.categories is not None
    assert turned.categories is not None
    assert whole.names == ("tumour", "bleed", "cyst")
    assert torch.allclose(whole.image, single, atol=1e-5)
    assert torch.allclose(whole.categories, turned.categories.flip(0), atol=1e-5)
    assert torch.equal(whole.image, whole.categories.max(dim=1).values)


def test_other_categories_and_tasks_in_the_book_change_no_score(method: Make, rows: MakeRows) -> None:
    # ragged lists: a longer list beside a category must not leak into it
    grown = BOOK.model_dump()
    grown["brain"]["categories"]["abscess"] = ["a ring that is bright and thick", "swelling", "restricted centre", "x"]
    grown["fundus"] = {"modality": "fundus", "normal": ["clear disc"], "categories": {"drusen": ["yellow dots"]}}
    plain = method()
    wide = method(vocabulary=build_vocabulary([SignBook.model_validate(grown)]))
    images = rows(plain, BRAIN)
    one = plain.score(images.features, plain.fit_support(images, "brain")).categories
    two = wide.score(images.features, wide.fit_support(images, "brain")).categories
    assert one is not None
    assert two is not None
    assert torch.allclose(one, two[:, :3], atol=1e-5)


def test_a_shared_sign_goes_through_the_tower_once(method: Make, rows: MakeRows, backbone: Backbone) -> None:
    made = method()
    images = rows(made)
    encoded: list[int] = []
    embedding = backbone.model.token_embedding
    watch = embedding.register_forward_hook(lambda _, inputs, __: encoded.append(len(inputs[0])))
    made.losses(episode_of(images))
    made.losses(episode_of(images.select([2, 4])))
    watch.remove()
    every = {(entry.modality, sign) for entry in BOOK.tasks.values() for sign in entry.vocabulary}
    listed = sum(len(entry.normal) + sum(map(len, entry.categories.values())) for entry in BOOK.tasks.values())
    assert encoded == [len(every), len(BOOK["chest"].vocabulary)]
    assert len(every) == listed - 1


def test_modes_of_selection_on_the_same_bank(method: Make, rows: MakeRows) -> None:
    kept = {}
    scores = {}
    for mode in ("none", "support", "sample", "support+sample"):
        made = method(selection=mode)
        images = rows(made, BRAIN)
        bank = made.fit_support(images, "brain")
        kept[mode] = {name: [keep for _, _, keep in signs] for name, signs in made.selected_signs(bank).items()}
        scores[mode] = made.score(images.features, bank).categories
    assert all(all(signs) for signs in kept["none"].values())
    assert {name: sum(signs) for name, signs in kept["support"].items()} == {
        "normal": 2,
        "tumour": 3,
        "bleed": 2,
        "cyst": 1,
    }
    assert kept["sample"] == kept["none"]
    assert kept["support+sample"] == kept["support"]
    assert len({str(value) for value in scores.values()}) == 4


@pytest.mark.parametrize("selection", ["none", "support", "sample", "support+sample"])
def test_the_evidence_is_the_score(method: Make, rows: MakeRows, selection: str) -> None:
    made = method(selection=selection, support_evidence="none")
    images = rows(made, BRAIN)
    bank = made.fit_support(images, "brain")
    scores = made.score(images.features, bank)
    assert scores.categories is not None
    kept = {name: {sign for sign, _, used in signs if used} for name, signs in made.selected_signs(bank).items()}
    for row, spoken in zip(scores.categories, made.sign_evidence(images.features, bank), strict=True):
        assert tuple(spoken) == scores.names
        for score, (name, signs) in zip(row, spoken.items(), strict=True):
            assert np.mean(list(signs.values())) == pytest.approx(float(score), abs=1e-5)
            assert list(signs.values()) == sorted(signs.values(), reverse=True)
            assert set(signs) <= kept[name]


def test_none_is_the_plain_mean_of_all_signs(method: Make, rows: MakeRows) -> None:
    made = method(selection="none", support_evidence="none", trainable=("image_adapters",), keep=1.0)
    images = rows(made, BRAIN)
    found = made.score(images.features, made.fit_support(images, "brain"))
    plain = made.baselines(images.features, images, "brain")["zero_shot"]
    assert found.categories is not None
    assert plain.categories is not None
    assert torch.allclose(found.categories, plain.categories, atol=1e-5)


def test_scores_against_several_banks_are_those_of_each_and_the_towers_run_once(
    method: Make, rows: MakeRows, backbone: Backbone
) -> None:
    made = method()
    images = rows(made, BRAIN)
    banks = [made.fit_support(images.select(half), "brain") for half in ([0, 1, 2], [3, 4, 5], [])]
    each = [made.score(images.features, bank) for bank in banks]
    encoded: list[int] = []
    watch = backbone.model.token_embedding.register_forward_hook(lambda *_: encoded.append(1))
    together = made.score_all(images.features, banks)
    watch.remove()
    assert len(encoded) == 1
    for one, other in zip(each, together, strict=True):
        assert one.categories is not None
        assert other.categories is not None
        assert torch.equal(one.categories, other.categories)
        assert torch.equal(one.image, other.image)
    assert not torch.equal(each[0].image, each[1].image), "the banks differ"


def test_a_bank_without_supports_scores_by_all_signs(method: Make, rows: MakeRows) -> None:
    made = method(selection="support")
    images = rows(made, BRAIN)
    empty = made.fit_support(images.select([]), "brain")
    assert len(empty) == 0
    assert all(math.isnan(value) and keep for signs in made.selected_signs(empty).values() for _, value, keep in signs)
    plain = method(selection="none")
    assert torch.equal(made.score(images.features, empty).image, plain.score(images.features, empty).image)


def test_supports_can_be_added_and_taken_away(method: Make, rows: MakeRows) -> None:
    made = method(selection="support")
    images = rows(made, BRAIN)
    whole = made.fit_support(images, "brain")
    parts = [made.fit_support(images.select(half), "brain") for half in ([0, 1, 2], [3, 4, 5])]
    joined = parts[0].add(parts[1])
    assert str(made.selected_signs(joined)) == str(made.selected_signs(whole))
    assert joined.remove(joined.ids[3:]).ids == parts[0].ids
    assert torch.equal(joined.remove(joined.ids[3:]).tensors["z"], parts[0].tensors["z"])


def test_a_withheld_category_is_scored_but_never_trained(method: Make, rows: MakeRows) -> None:
    made, without = method(withheld=("cyst",)), SignBook.model_validate(BOOK.model_dump())
    shorter = without.model_dump()
    del shorter["brain"]["categories"]["cyst"]
    never = method(vocabulary=build_vocabulary([SignBook.model_validate(shorter)]))
    images = rows(made)
    assert torch.allclose(made.losses(episode_of(images)), never.losses(episode_of(images)), atol=1e-5)
    brain = rows(made, BRAIN)
    assert made.score(brain.features, made.fit_support(brain, "brain")).names == ("tumour", "bleed", "cyst")
    with pytest.raises(DataError, match="'cyst' of task 'brain'"):
        made.losses(episode_of(rows(made, [("brain", ("cyst",))])))


def test_a_withheld_category_that_no_list_has_is_refused(method: Make) -> None:
    with pytest.raises(ConfigError, match=r"'cysts' is in no sign list \(nearest: 'cyst'\)"):
        method(withheld=("cysts",))


def test_labels_and_tasks_without_signs_are_named_with_the_nearest(method: Make, rows: MakeRows) -> None:
    made = method()
    with pytest.raises(DataError, match=r"'tumor' of task 'brain' has no signs .*nearest: 'tumour'"):
        made.losses(episode_of(rows(made, [("brain", ("tumor",))])))
    with pytest.raises(DataError, match=r"task 'brian' has no sign list \(nearest: 'brain'\)"):
        made.losses(episode_of(rows(made, [("brian", ())])))
    with pytest.raises(DataError, match="supports of task 'chest' cannot serve task 'brain'"):
        made.fit_support(rows(made), "brain")


def test_baselines_ignore_training_and_the_probe_is_logistic_regression(method: Make, rows: MakeRows) -> None:
    made = method()
    images = rows(made, BRAIN)
    before = made.baselines(images.features, images, "brain")
    made.load({name: torch.randn_like(tensor) for name, tensor in made.trainable().items()})
    after = made.baselines(images.features, images, "brain")
    assert set(before) == {"zero_shot", "zero_shot_names", "linear_probe"}
    assert all(torch.equal(before[name].image, after[name].image) for name in before)
    tumour = [("tumour" in names) for _, names in BRAIN]
    embedding = images.features["embedding"].numpy()
    probe = LogisticRegression(C=10, class_weight="balanced", max_iter=1000).fit(embedding, tumour)
    columns = before["linear_probe"].categories
    assert columns is not None
    assert columns[:, 0].tolist() == pytest.approx(probe.decision_function(embedding).tolist(), rel=1e-5)
    assert columns[:, 2].tolist() == [0.0] * len(images)
    nothing = made.baselines(images.features, images.select([]), "brain")["linear_probe"]
    assert nothing.image.tolist() == [0.0] * len(images)


def test_zero_shot_with_names_reads_the_names(method: Make, rows: MakeRows, backbone: Backbone) -> None:
    made = method()
    images = rows(made, BRAIN)
    texts = ["a normal brain MRI image", *(f"a brain MRI image with {name}" for name in ("tumour", "bleed", "cyst"))]
    encoded = backbone.model.encode_text(backbone.tokenizer(texts), normalize=True)
    logits = backbone.model.logit_scale.exp() * images.features["embedding"] @ encoded.T
    found = made.baselines(images.features, images, "brain")["zero_shot_names"].categories
    assert found is not None
    assert torch.allclose(found, logits[:, 1:] - logits[:, :1], atol=1e-4)


def test_features_are_frozen_cached_and_named_by_what_is_cached(method: Make, rows: MakeRows) -> None:
    made, light, deeper = method(), method(trainable=("context",)), method(image_layers="last 1")
    images = rows(made)
    assert images.features["tokens"].shape == (8, 10, 32)
    assert images.features["tokens"].dtype == torch.float32
    assert torch.equal(made.embedding(images.features), rows(light).features["embedding"])
    assert images.features["embedding"].norm(dim=1).tolist() == pytest.approx([1.0] * 8, rel=1e-5)
    assert set(rows(light).features) == {"embedding"}
    assert len({made.model_id, light.model_id, deeper.model_id}) == 3
    assert method(seed=9).model_id == made.model_id
    assert (made.episode.supports, made.episode.normals_only, made.episode.batch) == (0, False, 16)


def test_a_snapshot_brings_the_scores_back(method: Make, rows: MakeRows) -> None:
    made, other = method(seed=0), method(seed=1)
    images = rows(made, BRAIN)
    bank = made.fit_support(images, "brain")
    expected = made.score(images.features, bank).image
    assert not torch.equal(other.score(images.features, bank).image, expected)
    other.load(made.snapshot())
    assert torch.equal(other.score(images.features, bank).image, expected)
