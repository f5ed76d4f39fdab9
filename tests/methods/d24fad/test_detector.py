"""The method as the rest of the project sees it."""

import pytest
import torch
from pydantic import ValidationError

from fed_fsad import methods
from fed_fsad.errors import DataError
from fed_fsad.methods.d24fad import Settings
from fed_fsad.methods.method import part_of
from tests.methods.d24fad.helpers import SIZE, TASK, episode, images, method, rows, settings


def test_the_project_finds_it_by_name() -> None:
    assert "d24fad" in methods.names()
    assert methods.settings_type("d24fad") is Settings
    built = methods.build("d24fad", settings(batch=5, supports=3), 0)
    assert (built.name, built.protocol, built.image_size) == ("d24fad", "detection", SIZE)
    assert (built.episode.supports, built.episode.normals_only, built.episode.batch) == (3, True, 5)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = method(3).trainable(), method(3).trainable(), method(4).trainable()
    assert torch.equal(state, torch.random.get_rng_state())
    assert list(first) == list(again)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_trainable_holds_each_parameter_once_under_its_part(norm: str) -> None:
    detector = method(norm=norm)
    tensors = detector.trainable()
    owned = [*detector._student.parameters(), *detector._weighting.parameters()]
    assert {id(tensor) for tensor in tensors.values()} == {id(parameter) for parameter in owned}
    assert len(tensors) == len(owned)
    assert all(tensor.dtype == torch.float32 and tensor.requires_grad for tensor in tensors.values())
    assert {part_of(name) for name in tensors} == {"affine", "kernels", "weighting"}
    sizes = {part: sum(t.numel() for n, t in tensors.items() if part_of(n) == part) for part in ("affine", "kernels")}
    assert all(
        tensor.ndim == (1 if part_of(name) == "affine" else 4) for name, tensor in tensors.items() if "phi" not in name
    )
    assert sizes["affine"] == 3 * 2 * (24 + 48 + 96)


def test_batch_norms_running_statistics_stay_at_home() -> None:
    detector = method(norm="batch")
    before = detector.snapshot()
    features = detector.features(images(4))
    detector.losses(episode(rows(features), [0, 1], [[2], [3]]))
    buffers = dict(detector._student.named_buffers())
    assert any("running_mean" in name and value.abs().sum() > 0 for name, value in buffers.items())
    assert not any("running" in name or "num_batches" in name for name in detector.trainable())
    assert all(torch.equal(before[name], value) for name, value in detector.snapshot().items())


def test_what_travels_carries_the_whole_student() -> None:
    sender, receiver = method(1), method(2)
    frozen = receiver.model_id
    receiver._teacher = sender._teacher
    features = sender.features(images(3))
    support = rows(sender.features(images(2, seed=5)))
    receiver.load(sender.snapshot())
    ours = sender.score(features, sender.fit_support(support, TASK)).image
    theirs = receiver.score(features, receiver.fit_support(support, TASK)).image
    assert torch.equal(ours, theirs)
    assert frozen != sender.model_id


def test_training_lowers_the_loss() -> None:
    detector = method()
    data = episode(rows(detector.features(images(6))), [0, 1, 2, 3], [[4, 5], [5, 4], [4, 5], [5, 4]])
    optimiser = torch.optim.Adam(list(detector.trainable().values()), 2e-3, betas=detector._settings.betas)
    first = detector.losses(data).mean().item()
    for _ in range(15):
        optimiser.zero_grad()
        torch.autograd.backward(detector.losses(data).mean())
        optimiser.step()
    assert detector.losses(data).mean().item() < 0.7 * first


def test_model_id_names_teacher_and_size() -> None:
    ids = {method(0).model_id, method(1).model_id, method(0, image_size=96).model_id}
    assert len(ids) == 3
    assert method(0, tsd_weight=1.0, norm="batch").model_id in ids


def test_unfit_supports_are_refused() -> None:
    detector = method()
    features = detector.features(images(2))
    with pytest.raises(DataError, match="no support image"):
        detector.fit_support(rows(features).select([]), TASK)
    with pytest.raises(DataError, match="2 of 2 supports are not of task 'retina'"):
        detector.fit_support(rows(features), "retina")
    with pytest.raises(DataError, match="2 of 2 supports of task 'brain_mri' are abnormal"):
        detector.fit_support(rows(features, categories=("glioma",)), TASK)
    bank = detector.fit_support(rows(features), TASK)
    with pytest.raises(DataError, match="is empty"):
        detector.score(features, bank.remove(bank.ids))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teacher": {"name": "random", "weights": "x.pth"}}, "takes no weights"),
        ({"teacher": {"name": "resnet50"}}, "needs weights"),
        ({"teacher": {"name": "resnet18", "weights": "x.pth", "variant": "v1"}}, "no variant v1"),
        ({"teacher": {"name": "vgg16"}}, "there is no teacher"),
        ({"teacher": {"name": "resnet50", "weights": "x.pth", "sha256": "abc"}}, "pattern"),
        ({"image_size": 100}, "multiple of 32"),
        ({"supports": 0}, "greater than or equal to 1"),
        ({"lambda": 1}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate(values)
