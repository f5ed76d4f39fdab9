"""Every attack has power where it must and stays within the claim where noise is right; a defect is refuted."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode
from fed_fsad.errors import ConfigError
from fed_fsad.methods.method import Method
from fed_fsad.privacy.audit import sensitivity
from fed_fsad.privacy.audit.checks import CHECKS, audit, known
from fed_fsad.privacy.audit.finding import HOLDS, POWERLESS, REFUTED, UNCLAIMED, Finding
from fed_fsad.privacy.audit.ground import Ground
from fed_fsad.privacy.audit.guessing import evidence
from fed_fsad.privacy.audit.mechanism import ScaledNoise
from fed_fsad.privacy.audit.span import fit
from fed_fsad.privacy.audit.subject import Subject
from fed_fsad.privacy.gradients import ClippedSum, clipped_sum
from fed_fsad.privacy.noise import InsecureSeededNoise, Noise
from fed_fsad.privacy.policy import Policy
from tests.privacy.toys import Toy, images, rows

WIDTH = 400


def ground_of(supports: int) -> Ground:
    toy = Toy(supports=supports, width=WIDTH)
    with torch.no_grad():
        toy.map.mul_(0.02)  # away from where tanh is flat
    return Ground(toy, rows(images(40 * (supports + 1)), width=WIDTH), seed=0)


@pytest.fixture(scope="module")
def ground() -> Ground:
    """Records of one image; nobody changes it."""
    return ground_of(0)


def private(ground: Ground, epsilon: float = 8.0, make_noise: Callable[[int], Noise] = InsecureSeededNoise) -> Subject:
    terms = Policy(privacy="example", epsilon=epsilon, clip_norm=0.1)
    return Subject(ground, ("north",), terms, ("map",), make_noise=make_noise)


def weaker(factor: float) -> Callable[[int], Noise]:
    return lambda seed: ScaledNoise(InsecureSeededNoise(seed), factor)


def rows_of(subject: Subject, *names: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in audit([subject], names, lambda what, done, of: None)}


TOYS = ("mechanism", "removal", "isolation", "noise", "canaries", "lira")


@pytest.mark.parametrize("supports", [0, 2])
def test_right_noise_contradicts_no_claim_and_every_control_is_found(supports: int) -> None:
    found = rows_of(private(ground_of(supports)))
    assert {name: row.verdict for name, row in found.items()} == dict.fromkeys(TOYS, HOLDS)
    for name in ("mechanism", "canaries", "lira"):
        assert (found[name].figures["found"] or 0) < (found[name].figures["control"] or 0), name
    assert found["removal"].figures["found"] == pytest.approx(1, abs=1e-3)
    assert (found["removal"].figures["control"] or 0) > 1.5
    assert found["lira"].figures["control"] == 1.0
    assert (found["canaries"].figures["control"] or 0) > 3


def test_less_budget_is_found_less(ground: Ground) -> None:
    figures = [rows_of(private(ground, epsilon), "lira")["lira"].figures["found"] or 0 for epsilon in (1.0, 4.0, 16.0)]
    assert figures == sorted(figures)
    assert figures[0] < figures[-1]


def test_missing_noise_is_refuted_by_every_attack_that_noise_should_stop(ground: Ground) -> None:
    found = rows_of(private(ground, 1.0, weaker(0.0)), "mechanism", "noise", "canaries", "lira")
    assert {name: row.verdict for name, row in found.items()} == dict.fromkeys(found, REFUTED)


def test_halved_noise_is_refuted_by_the_mechanism_and_the_noise_check(ground: Ground) -> None:
    found = rows_of(private(ground, 2.0, weaker(0.5)), "mechanism", "noise")
    assert {row.verdict for row in found.values()} == {REFUTED}


@pytest.mark.parametrize("supports", [0, 2])
def test_a_sum_that_is_not_clipped_is_refuted(supports: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(method: Method, episode: Episode, clip_norm: float, names: Sequence[str]) -> ClippedSum:
        return clipped_sum(method, episode, 1e9, names)

    monkeypatch.setattr(sensitivity, "clipped_sum", unclipped)
    assert rows_of(private(ground_of(supports)), "removal")["removal"].verdict == REFUTED


def test_a_sum_that_is_clipped_as_a_whole_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(method: Method, episode: Episode, clip_norm: float, names: Sequence[str]) -> ClippedSum:
        found = clipped_sum(method, episode, 1e9, names)
        length = float(torch.cat([tensor.flatten() for tensor in found.total.values()]).norm())
        shorter = min(1.0, clip_norm / max(length, 1e-12))
        return replace(found, total={name: shorter * tensor for name, tensor in found.total.items()})

    monkeypatch.setattr(sensitivity, "clipped_sum", at_once)
    assert rows_of(private(ground_of(0)), "isolation")["isolation"].verdict == REFUTED


def test_without_terms_only_what_attacks_find_is_told(ground: Ground) -> None:
    found = rows_of(Subject(ground, ("north",), None, ("map",)))
    assert {name: (row.verdict, row.found) for name, row in found.items()} == dict.fromkeys(
        ("canaries", "lira"), (UNCLAIMED, "–")
    )
    assert found["lira"].figures["claimed"] == 1.0, "infinite μ bounds nothing"
    assert found["canaries"].figures["claimed"] is None


def test_a_control_that_fails_takes_the_verdict_with_it() -> None:
    blind = ground_of(2)
    with torch.no_grad():
        blind.pool.features["x"].zero_()  # all images are alike: no record has a gradient
    found = rows_of(private(blind), "canaries", "lira", "removal", "isolation")
    assert {row.verdict for row in found.values()} == {POWERLESS}


def test_the_same_seed_gives_the_same_rows_and_another_other_noise(ground: Ground) -> None:
    one, again = (rows_of(private(ground), "noise", "lira") for _ in range(2))
    other = rows_of(private(replace(ground, seed=1, kept={})), "noise", "lira")
    assert one == again
    assert one["noise"].figures["found"] != other["noise"].figures["found"]


def test_the_whole_budget_is_taken_for_one_release(ground: Ground) -> None:
    subject = private(ground)
    assert subject.epsilon == pytest.approx(8, rel=1e-6)
    assert subject.sigma == pytest.approx(0.6, abs=0.01), "σ of one full batch at ε = 8, δ = 1e-5"
    careful = replace(subject, terms=Policy(privacy="example", epsilon=8, least_noise=6), releases=4)
    assert careful.sigma == pytest.approx(3), "four releases with σ = 6"
    assert careful.epsilon < 8


def test_evidence_is_the_least_squares_solution_without_noise_and_a_coin_under_much() -> None:
    stream = torch.Generator().manual_seed(0)
    gradients = torch.randn(6, 20, generator=stream)
    coins = torch.tensor([1.0, 0, 1, 1, 0, 0])
    gram = gradients.double() @ gradients.double().T
    clean = evidence(gradients, gram, coins @ gradients, 0.0)
    np.testing.assert_allclose(clean, coins.numpy(), atol=1e-4)
    np.testing.assert_allclose(evidence(gradients, gram, coins @ gradients, 1e4), 0.5, atol=1e-4)


def test_evidence_is_the_posterior_mean_written_out() -> None:
    """x ~ N(½, ¼ I), s = Gᵀx + σn: E[x | s] by the joint Gaussian's covariances."""
    stream = torch.Generator().manual_seed(1)
    gradients = torch.randn(4, 9, generator=stream, dtype=torch.float64)
    seen, sigma = torch.randn(9, generator=stream, dtype=torch.float64), 0.7
    covariance = gradients.T @ gradients / 4 + sigma**2 * torch.eye(9, dtype=torch.float64)
    expected = 0.5 + gradients / 4 @ torch.linalg.solve(covariance, seen - 0.5 * gradients.sum(0))
    found = evidence(gradients, gradients @ gradients.T, seen, sigma)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-9)


def test_an_image_in_the_span_fits_best() -> None:
    """Hand-made: a gradient of rank 3 out of the tokens of image 0; other images are noise."""
    stream = torch.Generator().manual_seed(2)
    tokens: Tensor = torch.randn(5, 3, 24, generator=stream)
    adapter = torch.randn(3, 3, generator=stream) @ tokens[0]
    fits = fit(adapter, tokens, torch.randn(30, 3, 24, generator=stream))
    assert int(fits.argmax()) == 0
    assert fits[0] > 3 * np.sort(fits)[-2]


def test_names_of_checks() -> None:
    assert known(["lira", "noise"]) == ("noise", "lira")
    assert known([]) == tuple(CHECKS)
    with pytest.raises(ConfigError, match="there is no check 'lirra'; did you mean 'lira'"):
        known(["lirra"])


def test_a_check_that_the_method_has_not_is_refused(ground: Ground) -> None:
    with pytest.raises(ConfigError, match="span does not apply to toy"):
        rows_of(private(ground), "span")
    with pytest.raises(ConfigError, match="noise does not apply to toy"):
        rows_of(Subject(ground, ("north",), None, ("map",)), "noise")
