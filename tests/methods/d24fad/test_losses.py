"""Losses against the formulas, where their gradient goes, and what they may not depend on."""

import math

import pytest
import torch
from torch import Tensor

from fed_fsad.methods.d24fad.detector import D24FAD, TARGETS
from fed_fsad.methods.d24fad.losses import cosine_distances, mean_pairwise_cosine
from tests.methods.d24fad.helpers import array, episode, images, method, rows
from tests.reference import d24fad as reference

QUERY = [0, 2, 3]
SUPPORT = [[1, 2], [4, 3], [0, 0]]


def expected_losses(detector: D24FAD, features: dict[str, Tensor], tsd_weight: float, scale: str) -> list[float]:
    """L_ssd + λ L_tsd of every query, by loops over queries, scales and supports; only the decoder is ours."""
    decoded = [array(feature) for feature in detector._student(features["e4"])]
    phi = {name: array(value) for name, value in detector.trainable().items() if name.startswith("weighting/")}
    out = []
    for query, supports in zip(QUERY, SUPPORT, strict=True):
        loss = 0.0
        for stage in range(3):
            kernel = phi[f"weighting/phi.{stage}.weight"][:, :, 0, 0]
            bias = phi[f"weighting/phi.{stage}.bias"]
            q, values = decoded[stage][query], [decoded[stage][j] for j in supports]
            divisor = math.sqrt(q.size if scale == "sqrt_chw" else q.shape[0])
            mixed = reference.weighted_support(q, values, [reference.keys(kernel, bias, v) for v in values], divisor)
            loss += 1 - reference.cosine(q, mixed)
            loss += tsd_weight * (1 - reference.cosine(array(features[TARGETS[stage]])[query], q))
        out.append(loss)
    return out


@pytest.mark.parametrize(("tsd_weight", "scale"), [(0.1, "sqrt_chw"), (1.0, "sqrt_c")])
def test_losses_follow_the_formulas(tsd_weight: float, scale: str) -> None:
    detector = method(tsd_weight=tsd_weight, l2w_scale=scale)
    features = dict(detector.features(images(5)))
    losses = detector.losses(episode(rows(features), QUERY, SUPPORT))
    assert losses.shape == (3,)
    assert losses.tolist() == pytest.approx(expected_losses(detector, features, tsd_weight, scale), abs=1e-5)


def test_gradient_reaches_student_and_phi_and_nothing_else() -> None:
    detector = method()
    batch = images(5).requires_grad_()
    features = detector.features(batch)
    assert not any(value.requires_grad for value in features.values())
    torch.autograd.backward(detector.losses(episode(rows(features), QUERY, SUPPORT)).mean())
    assert batch.grad is None
    for name, parameter in detector.trainable().items():
        assert parameter.grad is not None, name
        if not name.endswith("bias") or name.startswith("affine/"):
            assert parameter.grad.abs().sum() > 0, name
    assert not any(parameter.requires_grad for parameter in detector._teacher._network.parameters())


def test_phi_bias_cannot_change_a_weight() -> None:
    """<query, bias> is the same for every support, so the softmax ignores it; the parameter counts need it."""
    detector = method()
    torch.autograd.backward(detector.losses(episode(rows(detector.features(images(5))), QUERY, SUPPORT)).sum())
    biases = [p for name, p in detector.trainable().items() if name.startswith("weighting/") and name.endswith("bias")]
    assert len(biases) == 3
    for bias in biases:
        assert bias.grad is not None
        assert bias.grad.abs().max() < 1e-6


def test_a_records_losses_depend_on_its_own_rows_only() -> None:
    detector = method()
    features = dict(detector.features(images(6)))
    whole = episode(rows(features), [0, 1, 3, 4], [[1, 2], [0, 2], [4, 5], [3, 5]], record=[0, 0, 1, 1])
    disturbed = {name: torch.cat([value[:3], 7 * value[3:] + 1]) for name, value in features.items()}
    before = detector.losses(whole)
    after = detector.losses(episode(rows(disturbed), [0, 1, 3, 4], whole.support.tolist(), whole.record.tolist()))
    assert torch.allclose(before[:2], after[:2], atol=1e-6)
    assert not torch.allclose(before[2:], after[2:], atol=1e-3)
    alone = detector.losses(episode(rows({n: v[:3] for n, v in features.items()}), [0, 1], [[1, 2], [0, 2]]))
    assert torch.allclose(before[:2], alone, atol=1e-6)


def test_frozen_features_give_the_same_update_as_the_plain_loop() -> None:
    """Golden test 3: teacher inside the step with its graph, every support encoded by itself, one query at a time."""
    ours, plain = method(), method()
    batch, shots = images(4), [[1, 2], [2, 3], [3, 0], [0, 1]]
    parameters = plain.trainable()
    network = plain._teacher._network.requires_grad_()
    normalised = (batch - plain._teacher._mean) / plain._teacher._std
    total = torch.zeros(())
    for query, supports in enumerate(shots):
        *targets, e4 = network(normalised[query : query + 1])
        queries = plain._student(e4)
        encoded = [plain._student(network(normalised[j : j + 1])[3]) for j in supports]
        for stage in range(3):
            values = torch.stack([one[stage] for one in encoded], dim=1)
            keys = torch.stack([plain._weighting.phi[stage](one[stage]) for one in encoded], dim=1)
            mixed = plain._weighting(queries[stage], keys, values)
            total = total + cosine_distances([queries[stage]], [mixed])[0]
            total = total + 0.1 * cosine_distances([targets[stage]], [queries[stage]])[0]
    torch.autograd.backward(total / 4)
    torch.autograd.backward(ours.losses(episode(rows(ours.features(batch)), [0, 1, 2, 3], shots)).mean())
    for name, parameter in ours.trainable().items():
        assert parameter.grad is not None
        other = parameters[name].grad
        assert other is not None
        assert torch.allclose(parameter.grad, other, atol=1e-6, rtol=1e-4), name


def test_diagnostics_tell_collapse() -> None:
    detector = method()
    features = dict(detector.features(images(4)))
    healthy = detector.diagnostics(episode(rows(features), [0, 1], [[1, 2], [2, 3]]))
    equal = {name: value[:1].expand_as(value) for name, value in features.items()}
    collapsed = detector.diagnostics(episode(rows(equal), [0, 1], [[1, 2], [2, 3]]))
    assert collapsed["student_cosine"] == pytest.approx(1, abs=1e-5)
    assert healthy["student_cosine"] < collapsed["student_cosine"] - 1e-3
    assert collapsed["loss_ssd"] == pytest.approx(0, abs=1e-5)
    losses = detector.losses(episode(rows(features), [0, 1], [[1, 2], [2, 3]])).mean()
    assert healthy["loss_ssd"] + 0.1 * healthy["loss_tsd"] == pytest.approx(losses.item(), abs=1e-5)
    one = {name: value[:1] for name, value in features.items()}
    assert "student_cosine" not in detector.diagnostics(episode(rows(one), [0], [[0]]))


def test_mean_pairwise_cosine_of_a_known_case() -> None:
    features = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]]).reshape(3, 2, 1, 1)
    assert mean_pairwise_cosine([features]) == pytest.approx(2 * math.sqrt(0.5) / 3)
    with pytest.raises(ValueError, match="two rows"):
        mean_pairwise_cosine([features[:1]])
