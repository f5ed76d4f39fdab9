"""What a round of a simulated federation costs, by engine, by what trains, by the number of hospitals.

    python -m benchmarks.simulation --hospitals 10 100 --engines inprocess cache
    python -m benchmarks.simulation --hospitals 10 --engines inprocess ray plain --profiles prompts

Every hospital holds the same few phantoms and takes the same few steps, so that what is not training shows. A cell is a
process of its own on one thread. inprocess: our default engine. cache: the same with a feature cache on disk that a
first run has filled. ray: the same two apps on Flower's engine. plain: Flower's engine with benchmarks/plain_flower.py.
first: the first round, in which models are loaded and images encoded; round: the mean of the others. in training: CPU
seconds within the hospitals' own work; per site: CPU milliseconds that a hospital costs a round beyond that; peak: the
most memory that the process has held, MiB. CPU and memory are known in process only: Ray's processes come and go.
Nothing is extrapolated: a line says how many rounds it has measured.
"""

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import clients.app
import server.rounds
from benchmarks.timing import memory_mib
from clients.train import train_round
from fed_fsad.config import Config, parse_config, resolved_yaml
from fed_fsad.errors import FederationError
from fed_fsad.progress import PlainProgress
from fed_fsad.residents import use
from fed_fsad.rundir import Event, RunDir
from server.superlink import SuperLink, free_port
from simulations.inprocess import run_inprocess
from simulations.ray import resources, run_on_ray

PROFILES = {
    "prompts": "sdmad: {trainable: [context]",
    "light": "d24fad: {student: light",
    "full": "d24fad: {student: full",
}
APP = """[project]
name = "plain"
version = "1.0.0"
[tool.flwr.app]
publisher = "benchmark"
[tool.flwr.app.components]
serverapp = "plain_flower:server"
clientapp = "plain_flower:client"
[tool.flwr.app.config]
config = ""
out = ""
resume = ""
"""


class Silent(PlainProgress):
    """Shows nothing: the table is what is printed."""

    def __call__(self, event: Event) -> None:
        """Nothing."""


@dataclass
class Cell:
    """Seconds by round: of CPU, of the wall, of CPU within training; peak in MiB; bytes of a hospital's update."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    peak: float = 0.0
    update: int = 0


def config_of(profile: str, hospitals: int, rounds: int, steps: int) -> str:
    """A federation of equal hospitals, as YAML; it is scored as little as can be."""
    method = f"{PROFILES[profile]}, local_steps: {steps}, batch: 4}}"
    held = "".join(
        f"\n- {{name: h{i:04d}, holds: {{organs: [oct], normal: 4, abnormal: 2}}}}" for i in range(hospitals)
    )
    return (
        f"name: bench\nthreads: 1\nmethods: {{{method}}}\nhospitals:{held}\narms: []\n"
        "data: {kind: phantoms, organs: [oct], test_normal: 2, test_abnormal: 2, pool: 2}\n"
        f"federation: {{rounds: {rounds}, deadline_s: 3600}}\nevaluation: {{shots: [2], draws: 1, every: {rounds}}}\n"
    )


@contextmanager
def watched(cell: Cell) -> Iterator[None]:
    """Fill `cell` with what the rounds and the training of this process cost."""
    one_round = server.rounds.Coordinator._one_round

    def training(*given: Any) -> Any:
        started = time.process_time()
        reply = train_round(*given)
        cell.training[-1] += time.process_time() - started
        return reply

    def round_(self: server.rounds.Coordinator) -> None:
        cell.training.append(0.0)
        cpu, wall = time.process_time(), time.perf_counter()
        one_round(self)
        cell.cpu.append(time.process_time() - cpu)
        cell.wall.append(time.perf_counter() - wall)

    with (
        patch.object(clients.app, "train_round", training),
        patch.object(server.rounds.Coordinator, "_one_round", round_),
    ):
        yield


def in_process(text: str, folder: Path, cached: bool) -> Cell:
    """Our default engine; cached: a run before has kept the features on disk."""
    cell, cache = Cell(), f"machine={{cache: {{path: {folder / 'cache'}}}}}"
    config = parse_config(text, "benchmark", [cache] if cached else [])
    if cached:
        _run(config, folder / "before")
        use(parse_config(text, "benchmark").machine)  # the next run finds features on the disk alone
    with watched(cell):
        run = _run(config, folder / "run")
    cell.peak, cell.update = memory_mib("VmHWM"), _update(run)
    return cell


def _run(config: Config, folder: Path) -> RunDir:
    run = RunDir.create(folder, config)
    use(config.machine)
    run_inprocess(config, run, Silent())
    return run


def _update(run: RunDir) -> int:
    return max(int(line["bytes_up"]) for line in run.events() if line["kind"] == "site")


def on_ray(text: str, folder: Path) -> Cell:
    """Flower's engine with our apps."""
    config = parse_config(text, "benchmark", ["engine=ray"])
    run = RunDir.create(folder / "run", config)
    run_on_ray(config, run, Silent())
    rounds = [line["seconds"] for line in run.events() if line["kind"] == "round"]
    return Cell(wall=rounds, update=_update(run))


def on_plain_flower(text: str, folder: Path) -> Cell:
    """Flower's engine with the client of benchmarks/plain_flower.py. Raises FederationError when a hospital failed."""
    config = parse_config(text, "benchmark")
    home, told = folder / "flower", folder / "times"
    app = home / "app"
    app.mkdir(parents=True)
    (app / "pyproject.toml").write_text(APP, encoding="utf-8")
    shutil.copy(Path(__file__).with_name("plain_flower.py"), app)
    (folder / "config.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    (home / "run.toml").write_text(f'config = "{folder / "config.yaml"}"\nout = "{told}"\n', encoding="utf-8")
    superlink = SuperLink(home, home, free_port())
    superlink.start(["--insecure", "--simulation"])
    try:
        options = ["--run-config", str(home / "run.toml"), "--federation-config", resources(config)]
        identity = str(superlink.flwr("run", str(app), "fed-fsad", *options)["run-id"])
        while not superlink.status(identity)[0].startswith("finished"):
            time.sleep(1.0)
    finally:
        superlink.daemon.stop()
    rows = [line.split() for line in told.read_text(encoding="utf-8").splitlines()]
    if len(rows) != config.federation.rounds + 1 or any(int(row[2]) != len(config.hospitals) for row in rows[1:]):
        raise FederationError(f"the plain run did not hear every hospital in every round: {rows}")
    return Cell(wall=[float(after[1]) - float(row[1]) for row, after in pairwise(rows)])


ENGINES: dict[str, Callable[[str, Path], Cell]] = {
    "inprocess": partial(in_process, cached=False),
    "cache": partial(in_process, cached=True),
    "ray": on_ray,
    "plain": on_plain_flower,
}


def measure(engine: str, text: str) -> Cell:
    """One cell, in a process of its own, one thread."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(ENGINES[engine], text, Path(folder).resolve()).result()


def line(profile: str, hospitals: int, engine: str, cell: Cell) -> str:
    """A row of the table."""
    shown = [profile, f"{hospitals:,}", engine, str(len(cell.wall)), f"{cell.wall[0]:.2f}", f"{later(cell.wall):.2f}"]
    if cell.cpu:
        cpu, training = later(cell.cpu), later(cell.training)
        beyond = 1e3 * (cpu - training) / hospitals
        shown += [f"{cpu:.2f}", f"{training:.2f}", f"{beyond:.2f}", f"{cell.peak:.0f}"]
    else:
        shown += [""] * 4
    return f"| {' | '.join([*shown, f'{cell.update:,}' if cell.update else ''])} |"


def later(values: Sequence[float]) -> float:
    """The mean of all but the first."""
    return sum(values[1:]) / (len(values) - 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hospitals", nargs="+", type=int, default=[10, 100, 1000], help="hospitals per federation")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="what runs it")
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=list(PROFILES), help="what trains")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per cell, at least 2")
    parser.add_argument("--steps", type=int, default=8, help="steps of a hospital per round")
    asked = parser.parse_args(arguments)
    if asked.rounds < 2:
        parser.error("--rounds must be at least 2: the first one is told apart")
    columns = ["trains", "hospitals", "engine", "rounds", "first, wall s", "round, wall s", "round, CPU s"]
    columns += ["in training", "per site, ms", "peak, MiB", "update, bytes"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for profile in asked.profiles:
        for hospitals in asked.hospitals:
            for engine in asked.engines:
                cell = measure(engine, config_of(profile, hospitals, asked.rounds, asked.steps))
                print(line(profile, hospitals, engine, cell), flush=True)


if __name__ == "__main__":
    main()
