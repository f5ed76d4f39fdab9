"""The other forms of losses, weights and batches, against loops and against each other."""

import math

import pytest
import torch
from torch import Tensor

from fed_fsad.errors import DataError
from fed_fsad.methods.d24fad.detector import D24FAD, TARGETS
from fed_fsad.methods.d24fad.scoring import score_images
from fed_fsad.methods.method import part_of
from tests.methods.d24fad.helpers import TASK, array, episode, images, method, rows
from tests.reference import d24fad as reference

QUERY = [0, 2, 3]
SUPPORT = [[1, 2], [4, 3], [0, 0]]


def weights_of(
    detector: D24FAD, decoded: list[reference.Array], stage: int, query: int, supports: list[int]
) -> list[float]:
    """Learn-to-weight's weights of one query at one scale, by the formula."""
    tensors = detector._weighting.state_dict()
    kernel, bias = array(tensors[f"phi.{stage}.weight"])[:, :, 0, 0], array(tensors[f"phi.{stage}.bias"])
    keys = [reference.keys(kernel, bias, decoded[stage][j]) for j in supports]
    return [float(w) for w in reference.weights(decoded[stage][query], keys, math.sqrt(decoded[stage][query].size))]


def test_the_papers_forms_follow_their_formulas() -> None:
    """L_tsd as the mean over positions of 1 - cos over channels, L_ssd as the weighted sum of distances."""
    detector = method(tsd_form="positions", weights_on="distances", tsd_weight=0.5)
    features = dict(detector.features(images(5)))
    losses = detector.losses(episode(rows(features), QUERY, SUPPORT)).tolist()
    decoded = [array(feature) for feature in detector._student(features["e4"])]
    for loss, query, supports in zip(losses, QUERY, SUPPORT, strict=True):
        expected = 0.0
        for stage, name in enumerate(TARGETS):
            weights = weights_of(detector, decoded, stage, query, supports)
            q = decoded[stage][query]
            expected += sum(
                w * (1 - reference.cosine(q, decoded[stage][j])) for w, j in zip(weights, supports, strict=True)
            )
            expected += 0.5 * float(reference.distance_map(array(features[name])[query], q).mean())
        assert loss == pytest.approx(expected, abs=1e-5)


def test_weighted_distances_make_the_map_too() -> None:
    detector = method(weights_on="distances", score="d24fad")
    features = dict(detector.features(images(4)))
    bank = detector.fit_support(rows({name: value[1:] for name, value in features.items()}), TASK)
    found = detector.score({name: value[:1] for name, value in features.items()}, bank).map
    decoded = [array(feature) for feature in detector._student(features["e4"])]
    distances = []
    for stage in range(3):
        weights = weights_of(detector, decoded, stage, 0, [1, 2, 3])
        maps = [reference.distance_map(decoded[stage][0], decoded[stage][j]) for j in (1, 2, 3)]
        distances.append(sum(w * m for w, m in zip(weights, maps, strict=True)))
    assert found is not None
    expected = torch.from_numpy(reference.anomaly_map(distances, detector.image_size)).float()
    assert torch.allclose(found[0], expected, atol=1e-5)


def gradients(
    detector: D24FAD, features: dict[str, Tensor], query: list[int], support: list[list[int]]
) -> dict[str, Tensor]:
    detector.losses(episode(rows(features), query, support)).mean().backward()  # type: ignore[no-untyped-call]
    return {name: tensor.grad.clone() for name, tensor in detector.trainable().items() if tensor.grad is not None}


def test_a_stopped_gradient_leaves_the_supports_as_constants() -> None:
    """Without the teacher's loss the student then learns from its queries alone, and phi still learns."""
    stopped, plain = method(stop_gradient=True, tsd_weight=0), method(tsd_weight=0)
    features = dict(stopped.features(images(3)))
    with torch.no_grad():
        fixed = plain._student(features["e4"])
    found = gradients(stopped, features, [0], [[1, 2]])
    queries = plain._student(features["e4"][:1])
    total = torch.zeros(())
    for query, value, phi in zip(queries, fixed, plain._weighting.phi, strict=True):
        mixed = plain._weighting(query, phi(value[1:])[None], value[1:][None])
        total = total + 1 - torch.cosine_similarity(query.flatten(), mixed.flatten(), dim=0)
    torch.autograd.backward(total)
    for name, tensor in plain.trainable().items():
        assert tensor.grad is not None
        assert torch.allclose(found[name], tensor.grad, atol=1e-6), name
    assert found["weighting/phi.0.weight"].abs().sum() > 0
    both = gradients(method(tsd_weight=0), features, [0], [[1, 2]])
    assert any(not torch.allclose(both[name], found[name], atol=1e-4) for name in both)


def test_calls_apart_change_nothing_but_what_batch_norm_sees() -> None:
    features = dict(method().features(images(5)))
    data = episode(rows(features), QUERY, SUPPORT)
    same = [method(batches=batches).losses(data) for batches in ("gathered", "apart")]
    assert torch.allclose(*same, atol=1e-6)
    other = [method(batches=batches, norm="batch").losses(data) for batches in ("gathered", "apart")]
    assert not torch.allclose(*other, atol=1e-3)


def test_a_learned_scale_starts_as_sqrt_chw_and_learns() -> None:
    features = dict(method().features(images(5)))
    data = episode(rows(features), QUERY, SUPPORT)
    learned, fixed = method(l2w_scale="learned"), method(l2w_scale="sqrt_chw")
    assert torch.equal(learned.losses(data), fixed.losses(data))
    assert "weighting/log_factor" in learned.trainable()
    found = gradients(learned, features, QUERY, SUPPORT)
    assert found["weighting/log_factor"].abs().sum() > 0
    supports = rows({name: value[:3] for name, value in features.items()})
    before = learned.score(features, learned.fit_support(supports, TASK)).image
    with torch.no_grad():
        learned.trainable()["weighting/log_factor"].fill_(8.0)
    keys = learned._weighting.keys([torch.ones(2, 24, 1, 1), torch.ones(2, 48, 1, 1), torch.ones(2, 96, 1, 1)])
    plain = fixed._weighting.keys([torch.ones(2, 24, 1, 1), torch.ones(2, 48, 1, 1), torch.ones(2, 96, 1, 1)])
    assert torch.allclose(keys[1], math.exp(8) * plain[1])
    assert before.isfinite().all()


def test_an_untrained_phi_neither_trains_nor_travels() -> None:
    detector = method(train_l2w=False)
    assert {part_of(name) for name in detector.trainable()} == {"affine", "kernels"}
    whole = method().trainable()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in detector.trainable().items())
    assert torch.equal(detector._weighting.phi[0].weight, whole["weighting/phi.0.weight"])


def test_settings_reach_the_episodes() -> None:
    spec = method(7, batches="apart", episodes="fixed").episode
    assert (spec.mixed, spec.fixed) == (True, 7)
    assert (method(7).episode.mixed, method(7).episode.fixed) == (False, None)


def test_the_top_score_is_the_mean_of_the_highest_hundredth() -> None:
    maps = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    found = score_images(maps, "topk").image
    for one, value in zip(maps, found, strict=True):
        assert float(value) == pytest.approx(sum(sorted(one.flatten().tolist())[-4:]) / 4)


def test_another_size_is_refused() -> None:
    detector = method(score="d24fad")
    with pytest.raises(DataError, match="an image of 96 x 96 pixels reached a detector of 64; resize it"):
        detector.features(torch.zeros(1, 3, 96, 96))
    bank = detector.fit_support(rows(detector.features(images(2))), TASK)
    with pytest.raises(DataError, match="of different sizes; encode both at the same image_size"):
        detector.score(method(0, image_size=96).features(torch.zeros(1, 3, 96, 96)), bank)
