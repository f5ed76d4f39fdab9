"""Private gradients against the formula written slowly, against Opacus, and against what they promise."""

from collections.abc import Sequence

import pytest
import torch
from opacus.optimizers import DPOptimizer
from scipy.stats import chi2
from torch import Tensor

from fed_fsad.data.episodes import Episode
from fed_fsad.privacy.gradients import clipped_sum, private_gradient, select_records
from fed_fsad.privacy.noise import InsecureSeededNoise, SecureNoise
from fed_fsad.privacy.records import partition_records, private_episode
from tests.privacy.toys import Toy, images, rows, sample

NAMES = ("map/weight", "map/shift")


def disjoint(toy: Toy, count: int) -> Episode:
    """All images of a site in disjoint episodes of K + 1."""
    samples = images(count)
    records = partition_records(samples, toy.episode, seed=0, unit="image")
    return private_episode(rows(samples), records, toy.episode.supports)


def slow_records(toy: Toy, episode: Episode, names: Sequence[str]) -> list[list[Tensor]]:
    """Per record, the gradient of (1/Q) Σ_q |tanh(W x_q + b) - (1/K) Σ_s tanh(W x_s + b)|², in float64."""
    weight, shift = (toy.trainable()[name].detach().double().requires_grad_() for name in NAMES)
    by_name = dict(zip(NAMES, (weight, shift), strict=True))
    x = episode.rows.features["x"].double()
    gradients = []
    for record in sorted(set(episode.record.tolist())):
        total = torch.zeros((), dtype=torch.float64)
        queries = [q for q in range(len(episode.query)) if episode.record[q] == record]
        for q in queries:
            value = torch.tanh(weight @ x[episode.query[q]] + shift)
            supports = [torch.tanh(weight @ x[s] + shift) for s in episode.support[q]]
            mean = sum(supports, torch.zeros(3, dtype=torch.float64)) / max(len(supports), 1)
            total = total + ((value - mean) ** 2).sum() / len(queries)
        gradients.append(list(torch.autograd.grad(total, [by_name[name] for name in names])))
    return gradients


def slow_sum(records: Sequence[Sequence[Tensor]], clip_norm: float) -> list[Tensor]:
    """Σ g·min(1, C/|g|)."""
    total = [torch.zeros_like(g) for g in records[0]]
    for record in records:
        norm = sum(float((g**2).sum()) for g in record) ** 0.5
        for t, g in zip(total, record, strict=True):
            t += g * min(1.0, clip_norm / norm)
    return total


@pytest.mark.parametrize("supports", [0, 2, 4])
@pytest.mark.parametrize("clip_norm", [0.05, 1.0, 1e3])
@pytest.mark.parametrize("names", [NAMES, NAMES[:1]])
def test_equals_the_slow_loop(supports: int, clip_norm: float, names: Sequence[str]) -> None:
    toy = Toy(supports=supports)
    episode = disjoint(toy, 16)
    records = len(set(episode.record.tolist()))
    found = private_gradient(
        toy, episode, records=20, clip_norm=clip_norm, noise_multiplier=0, noise=SecureNoise(), names=names
    )
    slow = slow_records(toy, episode, names)
    for name, expected in zip(names, slow_sum(slow, clip_norm), strict=True):
        torch.testing.assert_close(found.gradients[name].double(), expected / 20, atol=1e-6, rtol=1e-5)
    longer = sum(sum(float((g**2).sum()) for g in record) ** 0.5 > clip_norm for record in slow)
    assert found.clipped_fraction == pytest.approx(longer / records)
    assert tuple(found.gradients) == tuple(names)


def test_equals_the_optimizer_of_opacus() -> None:
    toy = Toy()
    episode = disjoint(toy, 30)
    parameters = [toy.map, toy.shift]
    per_record = [
        torch.autograd.grad(toy.losses(select_records(episode, [record])).mean(), parameters) for record in range(10)
    ]
    for place, parameter in enumerate(parameters):
        parameter.grad_sample = torch.stack([record[place] for record in per_record])  # type: ignore[attr-defined]
    inner = torch.optim.SGD(parameters, lr=1.0)
    optimizer = DPOptimizer(inner, noise_multiplier=0.0, max_grad_norm=0.5, expected_batch_size=10)
    found = private_gradient(
        toy, episode, records=10, clip_norm=0.5, noise_multiplier=0, noise=SecureNoise(), names=NAMES
    )
    optimizer.pre_step()
    for name, parameter in zip(NAMES, parameters, strict=True):
        torch.testing.assert_close(found.gradients[name], parameter.grad, atol=1e-7, rtol=1e-6)


def largest_shift(toy: Toy, episode: Episode, without: Sequence[Episode]) -> float:
    """The longest change of the clipped sum (C = 1) over the given neighbours of an episode."""
    full = clipped_sum(toy, episode, 1.0, NAMES).total
    shifts = []
    for neighbour in without:
        other = clipped_sum(toy, neighbour, 1.0, NAMES).total
        shifts.append(float(torch.cat([(full[name] - other[name]).flatten() for name in NAMES]).norm()))
    return max(shifts)


def test_removing_a_record_shifts_the_sum_by_at_most_the_clip_norm() -> None:
    toy = Toy()
    episode = disjoint(toy, 30)
    everything = range(int(episode.record.max()) + 1)
    without = [select_records(episode, [r for r in everything if r != gone]) for gone in everything]
    shift = largest_shift(toy, episode, without)
    assert 0.9 < shift <= 1.0 + 1e-5


def test_records_of_tuples_are_no_records_of_images() -> None:
    """The control: one record per (query, supports) with shared supports breaks the bound, and is refused."""
    toy = Toy()
    samples = images(12)
    site = rows(samples)

    def tuples(members: Sequence[int]) -> Episode:
        query = torch.tensor(members)
        support = torch.tensor([[0 if q != 0 else 1, 2 if q != 2 else 1] for q in members])
        support[:, 0] = torch.where(torch.isin(support[:, 0], query), support[:, 0], query[-1])
        return Episode(site, query, support, torch.arange(len(members)))

    everything = range(len(samples))
    without = [tuples([q for q in everything if q != gone]) for gone in everything]
    assert largest_shift(toy, tuples(everything), without) > 2.0
    with pytest.raises(ValueError, match="image image001 lies in records 0 and 1"):
        private_gradient(
            toy, tuples(everything), records=12, clip_norm=1, noise_multiplier=1, noise=SecureNoise(), names=NAMES
        )


def test_a_patient_in_two_records_is_refused() -> None:
    toy = Toy(supports=0)
    samples = [sample("a", "p"), sample("b", "p")]
    episode = private_episode(rows(samples), (("a",), ("b",)), 0)
    with pytest.raises(ValueError, match="patient p lies in records 0 and 1"):
        private_gradient(toy, episode, records=2, clip_norm=1, noise_multiplier=1, noise=SecureNoise(), names=NAMES)


def noise_p_value(multiplier: float, claimed: float) -> float:
    """Two-sided chi² p-value of the noise in 300 gradients against a standard deviation of claimed·C/records."""
    toy = Toy(supports=0)
    episode = private_episode(rows(images(3)), (("image000",), ("image001",), ("image002",)), 0)
    noise, clip_norm, records = SecureNoise(), 0.7, 4
    clean = clipped_sum(toy, episode, clip_norm, NAMES).total
    values = []
    for _ in range(300):
        found = private_gradient(
            toy, episode, records=records, clip_norm=clip_norm, noise_multiplier=multiplier, noise=noise, names=NAMES
        )
        values += [(found.gradients[name] - clean[name] / records).flatten().double() for name in NAMES]
    drawn = torch.cat(values) / (claimed * clip_norm / records)
    below = float(chi2.cdf(float((drawn**2).sum()), len(drawn)))
    return 2 * min(below, 1 - below)


def test_noise_has_the_promised_strength() -> None:
    assert noise_p_value(1.3, claimed=1.3) > 1e-6


def test_halved_noise_would_be_noticed() -> None:
    assert noise_p_value(0.65, claimed=1.3) < 1e-12


def test_an_invalid_record_counts_as_zero_and_silences_no_other() -> None:
    toy = Toy(supports=0)
    samples = images(6)
    site = rows(samples)
    records = tuple((s.id,) for s in samples)
    site.features["x"][2] = float("nan")
    site.features["x"][4] = float("inf")
    found = private_gradient(
        toy,
        private_episode(site, records, 0),
        records=6,
        clip_norm=1,
        noise_multiplier=0,
        noise=SecureNoise(),
        names=NAMES,
    )
    assert found.invalid_records == 2
    healthy = private_episode(rows(samples), records[:2] + records[3:4] + records[5:], 0)
    expected = clipped_sum(Toy(supports=0), healthy, 1.0, NAMES)
    for name in NAMES:
        torch.testing.assert_close(found.gradients[name], expected.total[name] / 6)


def test_no_record_still_releases_noise() -> None:
    toy = Toy()
    episode = private_episode(rows([]), (), 2)
    found = private_gradient(
        toy, episode, records=8, clip_norm=2, noise_multiplier=3, noise=InsecureSeededNoise(1), names=NAMES
    )
    noise = InsecureSeededNoise(1)
    for name in NAMES:
        expected = (2 * 3 * noise.normal(toy.trainable()[name].shape) / 8).float()
        torch.testing.assert_close(found.gradients[name], expected)
    assert found.clipped_fraction == 0
    assert toy.graphs == []


def test_a_parameter_outside_the_loss_gets_noise_like_any_other() -> None:
    toy = Toy()
    found = private_gradient(
        toy, disjoint(toy, 9), records=3, clip_norm=1, noise_multiplier=1, noise=SecureNoise(), names=["idle/weight"]
    )
    assert (found.gradients["idle/weight"] != 0).all()


def test_a_graph_holds_one_record_and_only_its_rows() -> None:
    toy = Toy()
    samples = [sample(f"{task}{n}", task=task) for task in ("brain", "liver") for n in range(9)]
    records = partition_records(samples, toy.episode, seed=0, unit="image")
    clipped_sum(toy, private_episode(rows(samples), records, 2), 1.0, NAMES)
    assert [set(part.record.tolist()) for part in toy.graphs] == [{0}] * 6
    for part in toy.graphs:
        assert len({s.task for s in part.rows.samples}) == 1
        assert len(part.rows) == 3
