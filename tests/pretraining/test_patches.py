import torch
from torch import Tensor
from torch.nn import functional as F

from fed_fsad.methods.d24fad.baselines import nearest_patch
from fed_fsad.methods.d24fad.scoring import combine
from pretraining.episodes import family_episodes
from pretraining.patches import patch_distance, position_distance


def _features(images: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(images)
    return [torch.rand(2, images, c, s, s, generator=generator) for c, s in ((5, 8), (6, 4), (7, 2))]


def test_patch_distance_is_what_the_detectors_baseline_takes() -> None:
    queries, supports = _features(3), _features(4)
    ours = patch_distance(queries[1:], supports[1:])
    for episode in range(2):
        query = {"f2": queries[1][episode], "f3": queries[2][episode]}
        support = {"f2": supports[1][episode], "f3": supports[2][episode]}
        expected = nearest_patch(query, support, 32).map
        torch.testing.assert_close(combine([ours[episode]], 32), expected)


def test_patch_distance_of_an_image_to_itself_is_zero() -> None:
    features = _features(2)
    torch.testing.assert_close(patch_distance(features, features), torch.zeros(2, 2, 8, 8), atol=1e-5, rtol=0)


def test_position_distance_agrees_with_a_plain_loop() -> None:
    queries, supports = _features(3), _features(4)
    ours = position_distance(queries, supports, 4)
    for e in range(2):
        for q in range(3):
            total = torch.zeros(4, 4)
            for query, support in zip(queries, supports, strict=True):
                size = query.shape[-1]
                nearest = torch.zeros(size, size)
                for y in range(size):
                    for x in range(size):
                        one = query[e, q, :, y, x]
                        nearest[y, x] = min(
                            1 - float(one @ s[:, y, x] / one.norm() / s[:, y, x].norm()) for s in support[e]
                        )
                if size == 8:
                    nearest = nearest.view(4, 2, 4, 2).mean((1, 3))
                if size == 2:
                    nearest = F.interpolate(nearest[None, None], (4, 4), mode="bilinear", align_corners=False)[0, 0]
                total += nearest
            torch.testing.assert_close(ours[e, q], total)


def test_episodes_alter_every_second_query_and_no_support() -> None:
    batch = family_episodes(seed=1, step=0, episodes=3, supports=2, queries=4, size=32)
    assert batch.pixels.shape == (3, 6, 3, 32, 32)
    assert not batch.altered[:, :2].any()
    assert not batch.altered[:, 2::2].any()
    assert batch.altered[:, 3::2].any()
    share = batch.altered_share(8)
    assert share.shape == (3, 4, 8, 8)
    torch.testing.assert_close(share.mean((2, 3)), batch.altered[:, 2:].mean((2, 3)))


def test_episodes_follow_from_seed_and_step_alone() -> None:
    first, again = (family_episodes(1, 5, 1, 1, 2, 32) for _ in range(2))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, family_episodes(1, 6, 1, 1, 2, 32).pixels)
    assert not torch.equal(first.pixels, family_episodes(2, 5, 1, 1, 2, 32).pixels)
