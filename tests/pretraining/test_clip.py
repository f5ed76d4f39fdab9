import numpy as np
import pytest
import torch
from torch import Tensor

from fed_fsad.assets import asset
from fed_fsad.data.phantoms import HELD_OUT, ORGANS
from fed_fsad.methods.sdmad.backbone import read_config, small_tokenizer
from pretraining.clip import LOOKING, ClipTraining, clip_plan
from pretraining.corpus import PhantomCorpus
from pretraining.losses import multi_positive
from pretraining.protocol import seen_kinds
from pretraining.zero_shot import averaged, category_sets, zero_shot_figures


def _by_loops(logits: Tensor, positive: Tensor) -> float:
    rows = []
    for row, wanted in zip(logits.tolist(), positive.tolist(), strict=True):
        total = sum(np.exp(value) for value in row)
        terms = [-np.log(np.exp(value) / total) for value, yes in zip(row, wanted, strict=True) if yes]
        if terms:
            rows.append(np.mean(terms))
    return float(np.mean(rows))


def test_multi_positive_is_the_formula_and_leaves_out_rows_without_positives() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=generator)
    positive = torch.rand(5, 7, generator=generator) > 0.6
    positive[2] = False
    assert float(multi_positive(logits, positive)) == pytest.approx(_by_loops(logits, positive), rel=1e-5)


def test_multi_positive_with_one_positive_each_is_cross_entropy() -> None:
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(4))
    torch.testing.assert_close(multi_positive(logits, torch.eye(4, dtype=torch.bool)), expected)


UNREAD = {"model.visual.class_embedding"}
"""Patches are averaged; the class token is only looked at by them."""


@pytest.fixture(scope="module")
def training() -> ClipTraining:
    config = read_config(asset("clip/model.json"))
    tokenizer = small_tokenizer(asset("clip/bpe.txt.gz"), config["model_cfg"]["text_cfg"]["context_length"])
    return ClipTraining(config, tokenizer, PhantomCorpus(0, 60, 96), clip_plan(0, 10))


def test_a_step_teaches_both_towers_the_scale_and_the_mask_head(training: ClipTraining) -> None:
    silent = []
    for step in (0, 9):
        training.zero_grad()
        training.loss(step).backward()  # type: ignore[no-untyped-call]
        silent.append({name for name, p in training.named_parameters() if p.grad is None or not bool(p.grad.any())})
    assert silent[1] <= UNREAD
    looked_with = {name for name, _ in training.named_parameters() if "visual" in name and "resblocks" in name}
    read_with = {name for name, _ in training.named_parameters() if name.startswith("model.transformer")}
    assert looked_with
    assert not looked_with & silent[0]
    assert read_with <= silent[0]
    assert 0 < LOOKING < 0.9


def test_a_step_follows_from_its_number(training: ClipTraining) -> None:
    first, again, other = (float(training.loss(step).detach()) for step in (8, 8, 9))
    assert first == again
    assert first != other


def test_reading_cuts_padding_without_changing_a_text(training: ClipTraining) -> None:
    texts = ["a chest X-ray image showing a round outline", "a normal brain MRI image"]
    whole = training.model.encode_text(training.tokenizer(texts), normalize=True)
    torch.testing.assert_close(training.read(texts), whole, atol=1e-5, rtol=0)


def test_the_scale_is_held_below_a_hundred(training: ClipTraining) -> None:
    with torch.no_grad():
        before = training.model.logit_scale.clone()
        training.model.logit_scale.fill_(9.0)
        training.loss(9)
        assert float(training.model.logit_scale.exp()) < 100
        training.model.logit_scale.copy_(before)


def test_category_sets_hold_normals_and_the_kinds_asked_for() -> None:
    for held_out in (False, True):
        for organ, held in category_sets(0, 1, 32, held_out).items():
            kinds = {kind for sample in held.samples for kind in sample.categories}
            expected = {kind for task, kind in HELD_OUT if task == organ} if held_out else set(seen_kinds(organ))
            assert kinds == expected
            assert sum(sample.is_normal for sample in held.samples) == 3


class _Oracle:
    """Texts are one-hot by their sign, images carry their own category's signs in their first pixels."""

    def __init__(self, signs: tuple[str, ...]) -> None:
        self.signs = signs

    def tokenizer(self, texts: list[str], context_length: int | None = None) -> Tensor:
        return torch.tensor([[self.signs.index(text.split(" image showing ")[1])] for text in texts])

    def encode_text(self, tokens: Tensor, normalize: bool) -> Tensor:
        return torch.eye(len(self.signs))[tokens[:, 0]]

    def encode_image(self, images: Tensor, normalize: bool) -> Tensor:
        return images[:, 0].flatten(1)[:, : len(self.signs)]


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, 0.0), (0.0, 0.5)])
def test_zero_shot_figures_of_one_who_knows_lies_or_guesses(sign: float, expected: float) -> None:
    sets = {"liver_ct": category_sets(0, 2, 32, False)["liver_ct"]}
    held = sets["liver_ct"]
    labels = held.table.labels([sample.categories for sample in held.samples])
    groups = torch.cat([~labels.any(1, keepdim=True), labels], dim=1).float()
    unique = held.table.member.float() / held.table.member.float().sum(0)
    held.images.zero_()
    held.images[:, 0].flatten(1)[:, : len(held.table.signs)] = sign * (groups @ unique)
    oracle = _Oracle(held.table.signs)
    zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    found = zero_shot_figures(oracle, oracle.tokenizer, zero, one, sets)["liver_ct"]
    assert found["category"] == pytest.approx(expected, abs=0.15)
    assert found["binary"] == pytest.approx(expected, abs=0.3)


def test_averages_are_over_organs() -> None:
    assert averaged({"a": {"x": 0.2, "y": 1.0}, "b": {"x": 0.4, "y": 0.0}}) == pytest.approx({"x": 0.3, "y": 0.5})
    assert len(ORGANS) == 6
