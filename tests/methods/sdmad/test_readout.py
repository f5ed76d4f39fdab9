"""What the supports add to the signs, and scores as probabilities: against SciPy, scikit-learn and plain reasoning."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fed_fsad.data.features import Rows
from fed_fsad.methods.method import Scores
from fed_fsad.methods.sdmad import logistic
from fed_fsad.methods.sdmad.detector import SdMad
from fed_fsad.methods.sdmad.evidence import BIAS_PRECISION, PRECISION, fit_probe
from fed_fsad.methods.sdmad.probability import fit_calibration
from fed_fsad.methods.sdmad.readout import fit_readout, left_out_scores
from fed_fsad.methods.sdmad.settings import Settings
from tests.methods.sdmad.conftest import LABELS

Make = Callable[..., SdMad]
MakeRows = Callable[..., Rows]
BRAIN = [label for label in LABELS if label[0] == "brain"]
MEMBER = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]]).bool()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def supports(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """z [4 count, 6], unit embeddings [4 count, 5] and labels [4 count, 2]: normal, either category, both."""
    labels = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]).bool().repeat(count, 1)
    pull = torch.cat([torch.zeros(len(labels), 3), labels.float()], dim=1)
    embeddings = torch.nn.functional.normalize(normal(len(labels), 5, seed=seed).float() + 2 * pull, dim=1)
    return normal(len(labels), 6, seed=seed + 1).float(), embeddings, labels


def options(selection: str = "sample", evidence: str = "probe") -> Settings:
    return Settings.model_validate({"selection": selection, "support_evidence": evidence})


def test_the_fit_is_the_minimum_that_scipy_finds() -> None:
    x, offset, weights = normal(9, 3), normal(9, seed=1), normal(9, seed=2).abs()
    target, mean = (normal(9, seed=3) > 0).double(), normal(3, seed=4)
    precision = torch.tensor([0.3, 2.0, 1.0], dtype=torch.float64)

    def loss(theta: np.ndarray) -> float:
        eta = offset.numpy() + x.numpy() @ theta
        errors = np.logaddexp(0, eta) - target.numpy() * eta
        return float(weights.numpy() @ errors + 0.5 * precision.numpy() @ (theta - mean.numpy()) ** 2)

    found = logistic.fit(x, target, offset, weights, mean, precision)
    best = minimize(loss, mean.numpy(), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000})
    np.testing.assert_allclose(found.numpy(), best.x, atol=1e-6)


def test_without_offset_and_prior_mean_it_is_ridge_logistic_regression() -> None:
    x, zero = normal(20, 4), torch.zeros(20, dtype=torch.float64)
    target = (normal(20, seed=1) > 0).double()
    found = logistic.fit(x, target, zero, zero + 1, torch.zeros(4).double(), torch.full((4,), 0.5).double())
    other = LogisticRegression(C=2, fit_intercept=False, tol=1e-10).fit(x.numpy(), target.numpy())
    np.testing.assert_allclose(found.numpy(), other.coef_[0], atol=1e-5)


@hypothesis_settings(deadline=None, max_examples=40)
@given(st.integers(0, 6), st.floats(0, 1e4), st.integers(0, 99))
def test_the_fit_ends_for_any_images(count: int, size: float, seed: int) -> None:
    # separable, huge, empty: the prior keeps one finite minimum
    x, zero = size * normal(count, 2, seed=seed), torch.zeros(count, dtype=torch.float64)
    precision = torch.tensor([0.2, 1.0], dtype=torch.float64)
    found = logistic.fit(x, (x[:, 0] > 0).double(), zero, zero + 1, torch.zeros(2).double(), precision)
    assert found.isfinite().all()


def test_the_probe_is_logistic_regression_on_the_abnormal_supports_from_what_the_signs_said() -> None:
    _, embeddings, labels = supports(3)
    scores = normal(len(labels), 2, seed=5).float()
    probe = fit_probe(scores, embeddings, labels)
    abnormal = labels.any(dim=1).numpy()
    v = embeddings.double().numpy()[abnormal]
    v = v - v.mean(axis=0)
    for m in range(2):
        y, s = labels[:, m].numpy()[abnormal].astype(float), scores[:, m].double().numpy()[abnormal]
        balance = np.where(y > 0, len(y) / 2 / y.sum(), len(y) / 2 / (1 - y).sum())

        def loss(theta: np.ndarray, y: np.ndarray = y, s: np.ndarray = s, c: np.ndarray = balance) -> float:
            eta = s + v @ theta[:-1] + theta[-1]
            prior = PRECISION * (theta[:-1] ** 2).sum() + BIAS_PRECISION * theta[-1] ** 2
            return float(c @ (np.logaddexp(0, eta) - y * eta) + prior / 2)

        best = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(probe.weights[m].numpy(), best.x[:-1], atol=1e-4)
    image, said = embeddings[:1] + 0.1, torch.tensor([[0.5, -1.0]])
    told = (image.double() - probe.centre) @ probe.weights.T / (1 + math.exp(-0.5))
    assert torch.allclose(probe.add(said, image), said + told.float(), atol=1e-6)


def test_an_image_without_a_sign_of_anything_is_left_alone_and_unknown_categories_too() -> None:
    z, embeddings, labels = supports(2)
    labels[:, 1] = False
    probe = fit_probe(torch.zeros(len(labels), 2), embeddings, labels)
    assert not probe.weights.any(), "all abnormal supports show the first category, none the second"
    labels = supports(2)[2]
    probe = fit_probe(torch.zeros(len(labels), 2), embeddings, labels)
    quiet = torch.full((len(labels), 2), -40.0)
    assert torch.equal(probe.add(quiet, embeddings), quiet)
    assert (probe.add(-quiet, embeddings) != -quiet).any()
    assert fit_readout(z, embeddings, torch.zeros_like(labels), MEMBER, options()).probe is None
    assert fit_readout(z[:0], embeddings[:0], labels[:0], MEMBER, options()).probe is None


@pytest.mark.parametrize("selection", ["none", "support", "sample", "support+sample"])
@pytest.mark.parametrize("evidence", ["none", "probe"])
def test_left_out_scores_are_those_of_a_readout_that_never_saw_the_image(selection: str, evidence: str) -> None:
    z, embeddings, labels = supports(2)
    chosen = options(selection, evidence)
    found = left_out_scores(z, embeddings, labels, MEMBER, chosen)
    turned = labels.clone()
    for i in range(len(z)):
        rest = [j for j in range(len(z)) if j != i]
        readout = fit_readout(z[rest], embeddings[rest], labels[rest], MEMBER, chosen)
        assert torch.allclose(found[i], readout.scores(z, embeddings)[i], atol=1e-5)
        turned[i] = ~labels[i]
        assert torch.equal(left_out_scores(z, embeddings, turned, MEMBER, chosen)[i], found[i]), "its own label is used"
        turned[i] = labels[i]
    assert left_out_scores(z[:0], embeddings[:0], labels[:0], MEMBER, chosen).shape == (0, 2)


def test_many_supports_give_the_probabilities_the_scores_were_drawn_from() -> None:
    scores = 3 * normal(4000, 2, seed=6)
    slope, shift = torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 0.5])
    chance = torch.sigmoid(slope * scores + shift)
    labels = torch.rand(4000, 2, generator=torch.Generator().manual_seed(7)) < chance
    found = fit_calibration(scores, labels)
    assert found.slope.tolist() == pytest.approx(slope.tolist(), rel=0.15)
    assert (found.probabilities(scores) - chance).abs().max() < 0.05
    assert found.thresholds.tolist() == pytest.approx([0.5, -1.0], abs=0.15)


@hypothesis_settings(deadline=None, max_examples=40)
@given(st.integers(0, 4), st.integers(0, 999), st.floats(0.01, 50))
def test_few_supports_keep_the_order_of_scores_and_finite_thresholds(count: int, seed: int, size: float) -> None:
    labels = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0]]).bool().repeat(count, 1)
    found = fit_calibration(size * normal(len(labels), 3, seed=seed), labels)
    assert (found.slope > 0).all()
    assert found.thresholds.isfinite().all()
    grid = torch.linspace(-5, 5, 11).double()[:, None].expand(-1, 3)
    assert (found.probabilities(grid).diff(dim=0) >= 0).all()
    if not count:
        assert torch.allclose(found.probabilities(grid), torch.sigmoid(grid))


def test_a_category_without_supports_has_what_the_others_share() -> None:
    labels = torch.tensor([[0, 0], [1, 0]]).bool().repeat(30, 1)
    scores = 4 * labels.double() - 1 + 0.1 * normal(60, 2)
    found = fit_calibration(scores, labels)
    assert found.slope[0] > 1
    assert 0 < found.slope[1] < found.slope[0]


def test_a_score_above_its_threshold_is_a_probability_above_one_half(method: Make, rows: MakeRows) -> None:
    made = method()
    images = rows(made, BRAIN)
    bank = made.fit_support(images, "brain")
    scores = made.score(images.features, bank)
    assert scores.categories is not None
    found, limits = made.probabilities(scores, bank), made.thresholds(bank)
    assert found.shape == scores.categories.shape
    assert limits.shape == (len(scores.names),)
    assert torch.equal(found > 0.5, scores.categories > limits)
    alone = Scores(scores.image[:1], categories=scores.categories[:1], names=scores.names)
    assert torch.allclose(made.probabilities(alone, bank)[0], found[0])
    nothing = made.fit_support(images.select([]), "brain")
    assert torch.allclose(made.probabilities(scores, nothing), torch.sigmoid(scores.categories))
    assert made.thresholds(nothing).tolist() == [0.0] * len(scores.names)


def test_banks_that_grow_and_shrink_read_out_as_fresh_ones(method: Make, rows: MakeRows) -> None:
    made = method()
    images = rows(made, BRAIN)
    whole = made.fit_support(images, "brain")
    nothing = made.fit_support(images.select([]), "brain")
    joined = nothing.add(whole)
    expected = made.score(images.features, whole).categories
    assert expected is not None
    joined_scores = made.score(images.features, joined).categories
    assert joined_scores is not None
    assert torch.equal(joined_scores, expected)
    fewer = made.score(images.features, whole.remove([whole.ids[1]])).categories
    fresh = made.score(images.features, made.fit_support(images.select([0, 2, 3, 4, 5]), "brain")).categories
    assert fewer is not None
    assert fresh is not None
    assert torch.allclose(fewer, fresh, atol=1e-6)
    assert not torch.equal(fewer, expected)
