"""Flower's plain way, which benchmarks/simulation.py runs beside ours: FedAvg, and a client that makes its model, its
images and their features anew for every message, as Flower's examples do.

The file is copied into a Flower app of its own. It trains the first method of the config in the run config's `config`,
with the same images and steps per hospital, and appends the wall time of each round's end to the file `out`.
"""

import time
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fed_fsad import methods
from fed_fsad.config import Config, load_config
from fed_fsad.data.build import hospital_samples
from fed_fsad.data.features import FeatureCache
from fed_fsad.messages import arrays_of, tensors_of
from fed_fsad.methods.method import Method, part_of
from fed_fsad.methods.training import train as train_method
from fed_fsad.seeds import reproducible

client = ClientApp()
server = ServerApp()


def opened(context: Context) -> tuple[Config, Method]:
    """The config and a new model of its first method."""
    config = load_config(Path(str(context.run_config["config"])))
    reproducible(config.threads)
    name, settings = next(iter(config.training.items()))
    return config, methods.build(name, settings, config.seed)


@client.train()
def train(message: Message, context: Context) -> Message:
    """A round at one hospital."""
    config, method = opened(context)
    method.load(tensors_of(message.content.array_records["arrays"]))
    site = config.hospitals[int(context.node_config["partition-id"])].name
    samples = hospital_samples(config.data, config.holdings, site, config.seed, frozenset(), None)
    rows = FeatureCache(1 << 30).rows(method.model_id, method.features, method.image_size, samples)
    parts = {part_of(name) for name in method.trainable()}
    train_method(method, config.training[method.name], rows, parts=parts, stream=(config.seed, site, 1))
    metrics = MetricRecord({"num-examples": len(rows)})
    return Message(RecordDict({"arrays": arrays_of(method.snapshot()), "metrics": metrics}), reply_to=message)


class Timed(FedAvg):
    """FedAvg that writes down when a round ended."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(fraction_evaluate=0.0, **options)
        self._path = path

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        """As FedAvg."""
        came = list(replies)
        found = super().aggregate_train(server_round, came)
        good = sum(reply.has_content() for reply in came)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{server_round} {time.time()} {good}\n")
        return found


@server.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds, all hospitals in each."""
    config, method = opened(context)
    path, sites = Path(str(context.run_config["out"])), len(config.hospitals)
    path.write_text(f"0 {time.time()} 0\n", encoding="utf-8")
    strategy = Timed(path, min_train_nodes=sites, min_available_nodes=sites)
    arrays: ArrayRecord = arrays_of(method.snapshot())
    strategy.start(grid, arrays, num_rounds=config.federation.rounds, timeout=config.federation.deadline_s,
                   train_config=ConfigRecord())  # fmt: skip
