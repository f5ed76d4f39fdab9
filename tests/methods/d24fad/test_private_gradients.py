"""Every trainable part of D²4FAD under privacy: gradients per episode are the slow ones, and one moves the sum by C.

The record is a disjoint episode of K + 1 images with all of its rotations; other ways to draw supports are the trap.
"""

import pytest
import torch

from fed_fsad.data.features import Rows
from fed_fsad.errors import PolicyRefusal
from fed_fsad.methods.d24fad.detector import D24FAD
from fed_fsad.methods.method import part_of
from fed_fsad.privacy.gradients import clipped_sum, record_gradients
from fed_fsad.privacy.policy import Policy
from fed_fsad.privacy.records import Records, private_episode
from fed_fsad.privacy.training import private_records
from tests.methods.d24fad.helpers import episode, images, method, rows
from tests.privacy.slow import clipped, flat_sum, largest_shift, slow_gradients

COUNT = 9
RECORDS: Records = (
    ("image0", "image1", "image2"),
    ("image3", "image4", "image5"),
    ("image6", "image7", "image8"),
)
CASES: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "full": ({}, ("affine", "kernels", "weighting")),
    "full, affine": ({}, ("affine",)),
    "full, weighting": ({}, ("weighting",)),
    "light": ({"student": "light", "rank": 2}, ("affine", "lowrank", "weighting")),
    "light, affine": ({"student": "light", "rank": 2}, ("affine",)),
    "light, lowrank": ({"student": "light", "rank": 2}, ("lowrank",)),
    "distances weighed": ({"weights_on": "distances", "tsd_form": "positions"}, ("affine", "weighting")),
    "learned scale": ({"l2w_scale": "learned"}, ("weighting",)),
    "official but for BatchNorm": (
        {"preset": "official", "norm": "group", "teacher": {"name": "random"}, "image_size": 64},
        ("affine", "kernels", "weighting"),
    ),
}
every = pytest.mark.parametrize("case", CASES)


def built(case: str) -> tuple[D24FAD, Rows, list[str]]:
    changes, parts = CASES[case]
    own = method(3, **changes)
    with torch.no_grad():  # away from the start, where a light student's `down` has gradient zero
        for number, tensor in enumerate(own.trainable().values()):
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)))
    names = [name for name in own.trainable() if part_of(name) in parts and name not in own.silent]
    return own, rows(own.features(images(COUNT))), names


@every
def test_clipped_gradients_are_the_slow_ones(case: str) -> None:
    own, site, names = built(case)
    slow = slow_gradients(own, site, RECORDS, names)
    norms = sorted(float(gradient.norm()) for gradient in slow)
    assert norms[0] > 0
    found = flat_sum(own, private_episode(site, RECORDS, own.episode.supports), norms[1], names)
    assert (found - clipped(slow, norms[1])).norm() <= 1e-6 * sum(norms)


@every
def test_the_vectorised_gradients_clip_like_the_loop(case: str) -> None:
    """By two, so that the last one is alone; with records that differ in where their images lie."""
    own, site, names = built(case)
    records = (RECORDS[0], ("image5", "image8", "image3"), (*RECORDS[2][:2], "image4"))
    parameters = [own.trainable()[name] for name in names]
    whole = private_episode(site, records, own.episode.supports)
    loop, together = (list(record_gradients(own, whole, parameters, size)) for size in (1, 2))
    assert len(loop) == len(together) == 3
    for one, other in zip(loop, together, strict=True):
        left, right = (torch.cat([g.flatten() for g in gradients]) for gradients in (one, other))
        assert (left - right).norm() <= 1e-5 * left.norm()


def test_vectorised_an_image_that_is_not_finite_reaches_no_other_record() -> None:
    own, site, names = built("light")
    parameters = [own.trainable()[name] for name in names]
    expected = list(record_gradients(own, private_episode(site, RECORDS, 2), parameters, 3))
    broken = rows({name: tensor.index_fill(0, torch.tensor([3]), torch.nan) for name, tensor in site.features.items()})
    found = list(record_gradients(own, private_episode(broken, RECORDS, 2), parameters, 3))
    finite = [all(bool(tensor.isfinite().all()) for tensor in gradients) for gradients in found]
    assert finite == [True, False, True]
    for place in (0, 2):
        assert all(torch.equal(one, other) for one, other in zip(found[place], expected[place], strict=True))


@pytest.mark.parametrize("case", ["full", "light", "distances weighed"])
def test_removing_an_episode_shifts_the_sum_by_at_most_the_clip_norm(case: str) -> None:
    own, site, names = built(case)
    shortest = min(float(gradient.norm()) for gradient in slow_gradients(own, site, RECORDS, names))
    assert 0.999 < largest_shift(own, site, RECORDS, shortest / 2, names) <= 1.0 + 1e-5


@pytest.mark.parametrize("supports", ["random", "derangement", "one fixed set"])
def test_clipping_pairs_of_query_and_supports_is_no_bound_for_an_image(supports: str) -> None:
    """The control of the test above: an image that is support in other pairs moves the sum by more than C."""
    own, site, names = built("light")
    stream = torch.Generator().manual_seed(1)

    def pairs(members: list[int]) -> list[list[int]]:
        if supports == "one fixed set":
            return [[i for i in members if i != query][:2] for query in members]
        if supports == "derangement":
            return [[members[(at + step) % len(members)] for step in (1, 2)] for at in range(len(members))]
        drawn = [[i for i in members if i != query] for query in members]
        return [[own[i] for i in torch.randperm(len(own), generator=stream)[:2].tolist()] for own in drawn]

    def total(members: list[int]) -> torch.Tensor:
        return flat_sum(own, episode(site, members, pairs(members)), 1e-3, names)

    everybody = list(range(COUNT))
    whole = total(everybody)
    shifts = [float((whole - total([i for i in everybody if i != gone])).norm()) / 1e-3 for gone in everybody]
    assert max(shifts) > 1.2


def test_batch_norm_is_refused_because_it_mixes_images() -> None:
    own = method(3, norm="batch")
    samples = rows(own.features(images(COUNT))).samples
    policy = Policy(privacy="example", epsilon=8, largest_rho=1e9)
    with pytest.raises(PolicyRefusal, match="set norm: group") as refused:
        private_records(own, ["affine"], samples, policy)
    assert refused.value.code == "images_mixed"


def test_batch_norm_left_in_train_mode_would_couple_images_and_group_norm_does_not() -> None:
    """What is refused above, seen at work: the loss of one query moves when an image of another episode changes."""
    for norm, coupled in (("batch", True), ("group", False)):
        own = method(3, norm=norm)
        seen = own.features(images(6))
        other = {name: torch.cat([tensor[:3], tensor[3:].flip(0) * 2]) for name, tensor in seen.items()}
        pairs = ([0, 3], [[1, 2], [4, 5]])
        first, second = (own.losses(episode(rows(features), *pairs))[0] for features in (seen, other))
        assert (abs(float(first - second)) > 1e-4) == coupled


@pytest.mark.parametrize("weights_on", ["features", "distances"])
def test_the_biases_of_learn_to_weight_have_no_gradient_and_get_no_noise(weights_on: str) -> None:
    own = method(3, weights_on=weights_on)
    site = rows(own.features(images(COUNT)))
    names = list(own.trainable())
    found = clipped_sum(own, private_episode(site, RECORDS, 2), 1.0, names).total
    found_silent = {
        name for name in names if found[name].abs().max() < 1e-6 * max(t.abs().max() for t in found.values())
    }
    assert found_silent == own.silent == {f"weighting/phi.{scale}.bias" for scale in range(3)}
    policy = Policy(privacy="example", epsilon=8, largest_rho=1e9)
    _, dims, _ = private_records(own, ["weighting"], site.samples, policy)
    assert dims == sum(own.trainable()[f"weighting/phi.{scale}.weight"].numel() for scale in range(3))


def test_no_support_set_of_the_hospital_is_ever_needed_outside_the_record() -> None:
    own, site, names = built("light, affine")
    alone = flat_sum(own, private_episode(site, RECORDS[:1], 2), 1e9, names)
    poisoned = rows({name: torch.cat([t[:3], 100 * t[3:]]) for name, t in site.features.items()})
    whole = private_episode(poisoned, RECORDS, 2)
    rest = flat_sum(own, private_episode(poisoned, RECORDS[1:], 2), 1e9, names)
    assert torch.allclose(flat_sum(own, whole, 1e9, names) - rest, alone, atol=1e-6 * float(alone.norm() + rest.norm()))
