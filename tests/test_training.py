"""Plain local training against Adam written out by hand."""

import pytest
import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode, sample_episode
from fed_fsad.errors import DataError
from fed_fsad.methods.method import TrainingSettings
from fed_fsad.methods.training import train
from fed_fsad.seeds import numpy_stream
from tests.privacy.toys import Toy, images, rows

SETTINGS = TrainingSettings(local_steps=4, lr=0.05, betas=(0.5, 0.9))
ROWS = rows(images(9))


def adam_by_hand(toy: Toy, names: list[str], site: str, round_: int) -> None:
    """Kingma & Ba 2015, Algorithm 1, on the same episodes."""
    rng = numpy_stream(7, "episodes", "toy", site, round_)
    tensors = [toy.trainable()[name] for name in names]
    first, second = [torch.zeros_like(t) for t in tensors], [torch.zeros_like(t) for t in tensors]
    (beta, gamma), lr = SETTINGS.betas, SETTINGS.lr
    for step in range(1, SETTINGS.local_steps + 1):
        loss = toy.losses(sample_episode(ROWS, toy.episode, rng)).sum() / toy.episode.batch
        gradients = torch.autograd.grad(loss, tensors)
        with torch.no_grad():
            for tensor, gradient, m, v in zip(tensors, gradients, first, second, strict=True):
                m.copy_(beta * m + (1 - beta) * gradient)
                v.copy_(gamma * v + (1 - gamma) * gradient**2)
                tensor -= lr * (m / (1 - beta**step)) / ((v / (1 - gamma**step)).sqrt() + 1e-8)


def trained(site: str = "north", round_: int = 1, parts: tuple[str, ...] = ("map", "idle")) -> dict[str, Tensor]:
    toy = Toy()
    train(toy, SETTINGS, ROWS, parts=parts, stream=(7, site, round_))
    return toy.snapshot()


def test_it_is_adam_on_the_mean_loss_of_the_episodes_its_stream_names() -> None:
    toy = Toy()
    adam_by_hand(toy, ["map/weight", "map/shift"], "north", 1)
    got = trained()
    for name in ("map/weight", "map/shift"):
        torch.testing.assert_close(got[name], toy.snapshot()[name], rtol=1e-5, atol=1e-6)
        assert not torch.equal(got[name], Toy().snapshot()[name])


def test_the_stream_alone_decides_the_bits() -> None:
    torch.manual_seed(1)
    one = trained()
    torch.manual_seed(2)
    assert torch.equal(one["map/weight"], trained()["map/weight"])
    for other in (trained(site="south"), trained(round_=2)):
        assert not torch.equal(one["map/weight"], other["map/weight"])


class TwoParts(Toy):
    """The map and its shift as parts of their own."""

    def trainable(self) -> dict[str, Tensor]:
        return {"map/weight": self.map, "shift/vector": self.shift, "idle/weight": self.idle}


@pytest.mark.parametrize(("parts", "moving"), [(("map", "idle"), {"map/weight"}), (("shift",), {"shift/vector"})])
def test_only_the_given_parts_move_and_of_them_what_the_loss_depends_on(
    parts: tuple[str, ...], moving: set[str]
) -> None:
    method, fresh = TwoParts(), TwoParts().snapshot()
    train(method, SETTINGS, ROWS, parts=parts, stream=(7, "north", 1))
    assert {name for name, value in method.snapshot().items() if not torch.equal(value, fresh[name])} == moving


def test_steps_are_counted_reported_and_averaged() -> None:
    seen: list[tuple[int, int]] = []
    toy, single = Toy(), Toy()
    log = train(
        toy, SETTINGS, ROWS, parts=["map"], stream=(7, "north", 1), steps=2, on_step=lambda *at: seen.append(at)
    )
    first = train(single, SETTINGS, ROWS, parts=["map"], stream=(7, "north", 1), steps=1)
    assert seen == [(1, 2), (2, 2)]
    assert len(toy.graphs) == 2
    rng = numpy_stream(7, "episodes", "toy", "north", 1)
    sample_episode(ROWS, toy.episode, rng)
    second = float(single.losses(sample_episode(ROWS, toy.episode, rng)).mean().detach())
    assert log.loss == pytest.approx((first.loss + second) / 2, rel=1e-6)


class Diverging(Toy):
    """Its loss is no number from the second step on."""

    def losses(self, episode: Episode) -> Tensor:
        return super().losses(episode) * (1.0 if len(self.graphs) < 2 else float("nan"))


def test_a_loss_that_is_no_number_ends_training_with_a_remedy() -> None:
    with pytest.raises(DataError, match=r"toy: the training loss is nan; lower methods\.toy\.lr"):
        train(Diverging(), SETTINGS, ROWS, parts=["map"], stream=(7, "north", 1))
