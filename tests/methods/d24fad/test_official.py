"""The preset `official` against an independent plain loop: parameter counts, features, loss, map and update."""

import math

import pytest
import torch
import torchvision.models
from torch import Tensor, nn

from fed_fsad.errors import ConfigError
from fed_fsad.methods.d24fad import Settings
from fed_fsad.methods.d24fad.backbones import SMALL, TORCHVISION, TorchvisionStages
from fed_fsad.methods.d24fad.detector import D24FAD, TARGETS
from fed_fsad.methods.d24fad.resnet import SmallResNet
from fed_fsad.methods.d24fad.student import Student
from fed_fsad.methods.d24fad.teacher import NONE, Anatomy, Teacher
from fed_fsad.methods.d24fad.weighting import LearnToWeight
from tests.methods.d24fad.helpers import SIZE, TASK, episode, images, rows
from tests.reference.d24fad_official import Plain, adam_step

QUERY, SUPPORT = [0, 1, 4], [[2, 3], [3, 0], [1, 1]]


def official(network: nn.Module, anatomy: Anatomy, **changes: object) -> D24FAD:
    """A detector of preset official around a network, its norms and running statistics off their first values."""
    settings = Settings.model_validate({"preset": "official", "image_size": SIZE, "statistics": "running", **changes})
    torch.manual_seed(5)
    student, weighting = Student(anatomy, settings.norm), LearnToWeight(anatomy.widths[:3], settings.l2w_scale)
    for name, tensor in student.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.uniform_(*((-0.1, 0.1) if name.endswith(("bias", "mean")) else (0.7, 1.3)))
        elif tensor.ndim == 0:
            tensor.fill_(1)
    return D24FAD(settings, Teacher(network, anatomy, "test", NONE), student, weighting, 0)


def plain(detector: D24FAD, anatomy: Anatomy) -> Plain:
    """The same weights in the plain loop, copied."""
    tensors = [tensor.detach().clone() for tensor in detector._student.state_dict().values()]
    phi = [
        (layer.weight.detach()[:, :, 0, 0].clone(), layer.bias.detach().clone()) for layer in detector._weighting.phi
    ]
    return Plain(detector._teacher._network, tensors, anatomy.blocks, anatomy.squeeze is not None, phi)


def agree(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert theirs.std() > 0
    assert (ours - theirs).abs().max() <= tolerance * max(1.0, float(theirs.abs().max()))


# ---- settings


def test_the_preset_fills_in_what_is_not_stated() -> None:
    given = Settings.model_validate({"preset": "official", "lr": 3e-4, "norm": "group"})
    assert (given.lr, given.norm) == (3e-4, "group")
    assert (given.betas, given.batch, given.image_size, given.tsd_weight) == ((0.5, 0.999), 16, 128, 0.1)
    assert (given.l2w_scale, given.batches, given.episodes) == ("sqrt_c", "apart", "fixed")
    assert (given.teacher.name, given.teacher.weights) == ("wide_resnet50_2", "IMAGENET1K_V1")
    assert given.teacher.input_norm == "none"
    assert Settings.model_validate(given.model_dump(mode="json")) == given
    named = Settings.model_validate({"preset": "official", "teacher": {"name": "embedded"}})
    assert (named.teacher.name, named.teacher.input_norm) == ("embedded", "none")
    assert Settings.model_validate({"preset": "default"}) == Settings()


# ---- golden test 6: parameter counts, worked out by hand


def bottleneck(inputs: int, inner: int, width: int, middle: int, shortcut: int) -> int:
    """Parameters of a block: 1x1, middle x middle, 1x1, each with scale and shift, and its shortcut's kernel side."""
    body = inputs * inner + inner * inner * middle**2 + inner * width + 2 * (inner + inner + width)
    return body + (inputs * width * shortcut**2 + 2 * width if shortcut else 0)


def test_counts_are_those_of_the_paper_to_the_unit() -> None:
    teacher = 7 * 7 * 3 * 64 + 2 * 64
    inputs = 64
    for width, blocks in ((256, 3), (512, 4), (1024, 6), (2048, 3)):
        teacher += bottleneck(inputs, width // 2, width, 3, 1) + (blocks - 1) * bottleneck(
            width, width // 2, width, 3, 0
        )
        inputs = width
    student = 0
    for width, blocks in ((1024, 3), (512, 4), (256, 6)):
        student += bottleneck(inputs, width // 2, width, 2, 2) + (blocks - 1) * bottleneck(
            width, width // 2, width, 3, 0
        )
        inputs = width
    phi = sum(width * width + width for width in (256, 512, 1024))
    assert (teacher, student, phi) == (66_834_240, 24_917_504, 1_378_048)
    anatomy = TORCHVISION["wide_resnet50_2"]
    with torch.device("meta"):
        network = TorchvisionStages(torchvision.models.wide_resnet50_2())
        built = (network, Student(anatomy, "batch"), LearnToWeight(anatomy.widths[:3], "sqrt_c"))
    assert [sum(p.numel() for p in module.parameters()) for module in built] == [teacher, student, phi]


def test_initial_values_follow_the_public_codes_rules() -> None:
    torch.manual_seed(1)
    student, weighting = Student(TORCHVISION["resnet18"], "batch"), LearnToWeight((64, 128, 256), "sqrt_c")
    for module in [*student.modules(), *weighting.modules()]:
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        elif isinstance(module, nn.Conv2d):  # Kaiming, fan-out: a normal of variance 2 / (outputs k k)
            expected = math.sqrt(2 / (module.weight.shape[0] * module.weight[0, 0].numel()))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert module.weight.abs().max() > 3 * expected
        elif isinstance(module, nn.ConvTranspose2d):  # PyTorch's default: uniform within 1 / sqrt(outputs k k)
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert 0.95 * bound < module.weight.abs().max() <= bound


# ---- the plain loop


@pytest.mark.slow
def test_features_loss_and_map_are_the_plain_loops_with_wide_resnet50_2() -> None:
    anatomy = TORCHVISION["wide_resnet50_2"]
    torch.manual_seed(2)
    detector = official(TorchvisionStages(torchvision.models.wide_resnet50_2()), anatomy)
    check_against_the_plain_loop(detector, anatomy)


def test_features_loss_and_map_are_the_plain_loops_with_a_small_teacher() -> None:
    torch.manual_seed(2)
    check_against_the_plain_loop(official(SmallResNet(), SMALL), SMALL)


def check_against_the_plain_loop(detector: D24FAD, anatomy: Anatomy) -> None:
    """In float32, to 1e-5: teacher and student features, the loss, what BatchNorm remembers of it, and a map."""
    reference, batch = plain(detector, anatomy), images(5)
    features = detector.features(batch)
    for name, stage in zip((*TARGETS, "e4"), detector._teacher._network(batch), strict=True):
        assert torch.equal(features[name], stage)
    detector._student.eval()
    with torch.no_grad():
        for ours, theirs in zip(
            detector._student(features["e4"]), reference.decode(features["e4"], False), strict=True
        ):
            agree(ours, theirs)
        loss = detector.losses(episode(rows(features), QUERY, SUPPORT)).mean()
        supports = [batch[[row[k] for row in SUPPORT]] for k in range(2)]
        expected = reference.loss(batch[QUERY], supports, 0.1)
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)
    for own, other in zip(detector._student.state_dict().values(), reference.student, strict=True):
        if own.is_floating_point():
            assert torch.allclose(own, other, atol=1e-5)
    bank = detector.fit_support(rows({name: value[2:4] for name, value in features.items()}), TASK)
    scores = detector.score({name: value[:1] for name, value in features.items()}, bank)
    assert scores.map is not None
    expected_map = torch.from_numpy(reference.map(batch[0], batch[2:4])).float()
    agree(scores.map[0], expected_map)
    assert float(scores.image[0]) == pytest.approx(float(expected_map.max()), abs=1e-5)


def test_one_step_of_adam_gives_the_plain_loops_parameters() -> None:
    """In float64: where a gradient is nothing but rounding, as phi's bias's, float32's Adam goes either way."""
    torch.manual_seed(2)
    detector = official(SmallResNet(), SMALL)
    for module in (detector._student, detector._weighting, detector._teacher._network):
        module.double()
    detector._teacher._mean, detector._teacher._std = detector._teacher._mean.double(), detector._teacher._std.double()
    reference, batch = plain(detector, SMALL), images(5).double()
    moving = [tensor for tensor in reference.student if tensor.is_floating_point()]
    names = [name for name, tensor in detector._student.state_dict().items() if tensor.is_floating_point()]
    learned = [t for n, t in zip(names, moving, strict=True) if "running" not in n] + [
        t for p in reference.phi for t in p
    ]
    for tensor in learned:
        tensor.requires_grad_()
    expected_loss = reference.loss(batch[QUERY], [batch[[row[k] for row in SUPPORT]] for k in range(2)], 0.1)
    expected = [
        adam_step(v, g, 1e-4) for v, g in zip(learned, torch.autograd.grad(expected_loss, learned), strict=True)
    ]
    ours = list(detector._student.parameters()) + list(detector._weighting.parameters())
    optimiser = torch.optim.Adam(list(detector.trainable().values()), detector._settings.lr, detector._settings.betas)
    torch.autograd.backward(detector.losses(episode(rows(detector.features(batch)), QUERY, SUPPORT)).mean())
    optimiser.step()
    for own, other in zip(ours, expected, strict=True):
        assert (own.flatten() - other.flatten()).abs().max() < 1e-6


# ---- what BatchNorm may not do


def test_a_score_under_batch_norm_is_the_same_in_any_batch_and_bank_order() -> None:
    """Golden tests 1 and 2: statistics come from the supports; add, then remove, equals a fresh bank."""
    torch.manual_seed(2)
    detector = official(SmallResNet(), SMALL, statistics="supports")
    features, support = detector.features(images(6)), rows(detector.features(images(3, seed=9)))
    bank = detector.fit_support(support, TASK)
    together = detector.score(features, bank)
    for row in (0, 4):
        alone = detector.score({name: value[row : row + 1] for name, value in features.items()}, bank)
        assert torch.allclose(together.image[row], alone.image[0], atol=1e-5)
    first = detector.fit_support(support.select([0, 1]), TASK)
    assert not torch.allclose(detector.score(features, first).image, together.image, atol=1e-3)
    again = first.add(detector.fit_support(support.select([2]), TASK))
    assert torch.allclose(detector.score(features, again).image, together.image, atol=1e-6)


def test_running_statistics_are_forgotten_with_the_tensors_they_belong_to() -> None:
    torch.manual_seed(2)
    detector = official(SmallResNet(), SMALL)
    support = rows(detector.features(images(2)))
    detector.fit_support(support, TASK)
    detector.load(detector.snapshot())
    with pytest.raises(ConfigError, match="set statistics: supports"):
        detector.fit_support(support, TASK)
