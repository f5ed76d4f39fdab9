import numpy as np
import pytest
from PIL import Image

from fed_fsad.seeds import numpy_stream
from pretraining.families import sample_family
from pretraining.scenes import TEXTURE_NUMBER, VISIBLE, draw
from pretraining.shapes import SHAPES, Shape, sample_shape
from pretraining.textures import TEXTURES, Texture, lattice, smooth_noise

SIZE = 48


def test_the_lattice_holds_pixel_centres() -> None:
    y, x = lattice(4)
    assert y[:, 0].tolist() == x[0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert (y == y[:, :1]).all()
    assert (x == x[:1]).all()


def test_smooth_noise_is_pillows_bicubic_resize_of_coarse_noise() -> None:
    noise = smooth_noise(np.random.default_rng(3), SIZE, 5)
    coarse = np.random.default_rng(3).standard_normal((7, 7), dtype=np.float32)
    resized = np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(noise, resized, atol=1e-5)


@pytest.mark.parametrize("kind", TEXTURES)
def test_every_texture_is_finite_bounded_and_reproducible(kind: str) -> None:
    texture = Texture(kind, 0.7, 9.0, 2.0)
    values = texture.fill(np.random.default_rng(1), *lattice(SIZE))
    assert values.shape == (SIZE, SIZE)
    assert values.dtype == np.float32
    assert np.abs(values).max() < 5
    assert values.std() > 0.01
    assert (values == texture.fill(np.random.default_rng(1), *lattice(SIZE))).all()


@pytest.mark.parametrize("kind", SHAPES)
def test_every_shape_covers_a_part_of_the_image_around_its_centre(kind: str) -> None:
    shape = Shape(kind, 0.2, -0.1, 0.4, 1.0, 0.5, 0.02, 0.0, 0.5)
    y, x = lattice(SIZE)
    cover = shape.cover(np.random.default_rng(0), y, x)
    assert cover.min() >= 0
    assert 0.005 < (cover > 0.5).mean() < 0.6
    assert not (cover > 0.5)[np.hypot(y - 0.2, x + 0.1) > 0.7].any()


def test_a_disc_covers_what_its_formula_says() -> None:
    y, x = lattice(SIZE)
    disc = Shape("disc", 0, 0, 0.5, 1.0, 0.0, 0.01, 0.0, 0.0).cover(np.random.default_rng(0), y, x)
    np.testing.assert_array_equal(disc > 0.5, np.hypot(y, x) < 0.5)


def test_jitter_of_zero_keeps_a_shape() -> None:
    shape = sample_shape(np.random.default_rng(2), (0.1, 0.5), 0.5)
    assert shape.jittered(np.random.default_rng(0), 0.0) == shape
    assert shape.jittered(np.random.default_rng(0), 1.0) != shape


@pytest.mark.parametrize("seed", range(12))
def test_only_altered_images_depart_from_their_family(seed: int) -> None:
    family = sample_family(numpy_stream(seed, "family"))
    plain, altered = (draw(family, numpy_stream(seed, "image"), SIZE, alter) for alter in (False, True))
    assert not plain.altered.any()
    for scene in (plain, altered):
        assert scene.pixels.shape == (3, SIZE, SIZE)
        assert scene.pixels.min() >= 0
        assert scene.pixels.max() <= 1
        assert set(np.unique(scene.texture)) <= set(TEXTURE_NUMBER.values())
        assert scene.region.max() <= len(family.layers)
    assert (plain.region == altered.region).all(), "an alteration lies on top of the family's own regions"
    again = draw(family, numpy_stream(seed, "image"), SIZE, True)
    assert (altered.pixels == again.pixels).all()


def test_most_alterations_are_visible_and_none_fills_the_image() -> None:
    shares = []
    for seed in range(40):
        family = sample_family(numpy_stream(seed, "family"))
        shares.append(draw(family, numpy_stream(seed, "image"), SIZE, True).altered.mean())
    assert np.mean(np.array(shares) > 0) > 0.8
    assert np.median(shares) < 0.4
    assert 0 < VISIBLE < 0.2
