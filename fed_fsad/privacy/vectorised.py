"""Gradients of several records at once, for machines that wait for launches and not for arithmetic (ours, by vmap)."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fed_fsad.data.episodes import Episode
from fed_fsad.data.features import Features, Rows
from fed_fsad.methods.method import Method


class _Swapped(nn.Module):
    """Calls what it is given; under `functional_call` the network has other parameters meanwhile."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, work: Callable[[], Tensor]) -> Tensor:
        return work()


def gradients_at_once(
    method: Method, network: nn.Module, records: Sequence[Episode], parameters: Sequence[Tensor]
) -> Iterator[tuple[Tensor, ...]]:
    """As one pull-back after the other through `method.losses`, of records with as many queries and rows each.

    network: holds all `parameters`. Every record is computed as if alone: NaN in one reaches no other.
    """
    swapped = _Swapped(network)
    names = {id(parameter): name for name, parameter in swapped.named_parameters()}
    values = {names[id(parameter)]: parameter.detach() for parameter in parameters}
    samples = records[0].rows.samples
    alone = torch.zeros(len(records[0].query), dtype=torch.long)

    def loss(own: dict[str, Tensor], features: Features, query: Tensor, support: Tensor) -> Tensor:
        episode = Episode(Rows(features, samples), query, support, alone)
        return functional_call(swapped, own, (lambda: method.losses(episode).mean(),))  # type: ignore[no-any-return]

    features = {name: torch.stack([r.rows.features[name] for r in records]) for name in records[0].rows.features}
    device = parameters[0].device  # an index of its own for every record must lie where the features are
    query, support = (torch.stack([getattr(own, key) for own in records]).to(device) for key in ("query", "support"))
    found = vmap(grad(loss), in_dims=(None, 0, 0, 0))(values, features, query, support)
    whole = [found[names[id(parameter)]] for parameter in parameters]
    shapes = [(len(records), *parameter.shape) for parameter in parameters]
    assert [gradient.shape for gradient in whole] == shapes, "one gradient per record"
    yield from zip(*whole, strict=True)
