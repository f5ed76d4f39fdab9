from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from fed_fsad.data.features import Rows
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.methods.d24fad import build
from fed_fsad.methods.d24fad.resnet import SmallResNet
from pretraining.measure import (
    PRODUCT,
    DetectionSet,
    auroc,
    default_score,
    detection_figures,
    frozen,
    load_teacher,
    phantom_detection_sets,
    pixels,
    raw_pixel_figures,
)
from pretraining.real import MOST, REAL_SETS, real_detection_sets
from pretraining.teacher import new_network, normalised


@pytest.fixture
def network() -> SmallResNet:
    return new_network(0)


def test_figures_tell_stripes_from_flat_images_and_chance_from_skill(network: SmallResNet) -> None:
    generator = torch.Generator().manual_seed(0)
    flat = 0.5 + 0.02 * torch.rand(30, 3, 64, 64, generator=generator)
    striped = flat[:10].clone()
    striped[..., ::4] = 1.0
    labels = torch.tensor([0] * 10 + [1] * 10)
    easy = DetectionSet(flat[10:20], torch.cat([flat[20:], striped]), labels)
    hopeless = DetectionSet(flat[10:20], torch.cat([flat[20:], flat[:10]]), labels)
    found = detection_figures(frozen(network), {"easy": easy, "hopeless": hopeless}, 0)
    assert found["easy"] == {"default": 1.0, "patch": 1.0, "position": 1.0, "pooled": 1.0}
    assert all(0.2 < figure < 0.8 for figure in found["hopeless"].values())
    assert network.training, "measuring leaves the network in training as it was"
    assert all(p.requires_grad for p in network.parameters())


def test_detection_sets_keep_supports_out_of_the_test(network: SmallResNet) -> None:
    held = phantom_detection_sets(("oct",), -2, 4, 32, pool=3)["oct"]
    assert held.pool.shape == (3, 3, 32, 32)
    assert held.labels.tolist() == [0] * 4 + [1] * 4
    samples = phantom_set("oct", 7, 4, style=0, seed=-2)
    torch.testing.assert_close(pixels(samples, 32), torch.cat([held.pool, held.test]))


def test_the_default_is_the_score_of_the_product_and_its_pixels_are_measured_with_masks() -> None:
    held = phantom_detection_sets(("oct",), -2, 3, PRODUCT.image_size, pool=4)["oct"]
    detector = build(PRODUCT, 0)
    test, pool = (detector.features(images) for images in (held.test, held.pool))
    supports = phantom_set("oct", 4, 0, style=0, seed=-2)
    bank = detector.fit_support(Rows(pool, tuple(supports)), "oct")
    own, found = detector.score(test, bank), default_score(test, pool, PRODUCT.image_size)
    torch.testing.assert_close(found.image, own.image)
    torch.testing.assert_close(found.map, own.map)

    assert held.masks is not None
    assert held.masks.any(dim=(1, 2)).tolist() == [bool(label) for label in held.labels]
    figures = detection_figures(frozen(load_teacher()), {"oct": held}, 0)["oct"]
    maps = own.map
    assert maps is not None
    pixels_ = roc_auc_score(held.masks.flatten().numpy(), maps.flatten().numpy())
    assert figures["default pixel"] == pytest.approx(pixels_), "all four of the pool are supports in every draw"


def test_auroc_counts_pairs() -> None:
    labels, scores = torch.tensor([0, 0, 1, 1]), torch.tensor([0.1, 0.5, 0.5, 0.9])
    assert auroc(labels, scores) == pytest.approx((1 + 0.5 + 1 + 1) / 4)


def test_normalised_images_are_imagenets() -> None:
    grey = normalised(torch.full((2, 3, 4, 4), 0.5))
    assert grey[0, :, 0, 0].tolist() == pytest.approx(
        [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    )


def test_real_sets_read_folders_by_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in REAL_SETS:
        for split, label, count in (
            ("train", "normal", 5),
            ("test", "normal", 3),
            ("test", "ill", 2),
            ("test", "b", 2),
        ):
            folder = tmp_path / name / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    sets = real_detection_sets(tmp_path, 32, 0)
    assert set(sets) == set(REAL_SETS)
    for held in sets.values():
        assert held.pool.shape == (5, 3, 32, 32)
        assert held.labels.tolist() == [0] * 3 + [1] * 4
    assert MOST == 80


def test_raw_pixels_tell_bright_images_and_guess_on_equal_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = 0.3 + 0.02 * torch.rand(30, 3, 64, 64, generator=generator)
    labels = torch.tensor([0] * 10 + [1] * 10)
    easy = DetectionSet(flat[:10], torch.cat([flat[10:20], flat[20:] + 0.3]), labels)
    equal = DetectionSet(flat[:10], torch.cat([flat[10:20], flat[10:20]]), labels)
    assert raw_pixel_figures({"easy": easy, "equal": equal}, 0) == {
        "easy": {"raw pixels": 1.0},
        "equal": {"raw pixels": 0.5},
    }


def test_networks_of_two_seeds_differ_and_of_one_seed_agree() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (new_network(seed).state_dict()["stem.0.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state()), "the global random state is left alone"
