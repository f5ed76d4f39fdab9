"""The default engine: ServerApp and ClientApp in this process, reproducible to the last bit."""

from flwr.app import Context, RecordDict
from flwr.app.user_config import UserConfig

from clients.app import build_app as build_client
from fed_fsad.config import Config
from fed_fsad.progress import Progress
from fed_fsad.rundir import RunDir
from server.app import build_app as build_server
from simulations.grid import SERVER_NODE, InProcessGrid


def run_inprocess(config: Config, run: RunDir, progress: Progress) -> None:
    """Train the federation of `config` in `run`, from its last checkpoint if there is one.

    Raises FederationError, DataError, ... as the server does.
    """
    path = run.path.resolve()
    run_config: UserConfig = {"config": str(path / "config.yaml"), "out": str(path), "resume": "require"}
    sites = len(config.hospitals)
    nodes: list[UserConfig] = [{"partition-id": i, "num-partitions": sites} for i in range(sites)]
    grid = InProcessGrid(build_client(progress), nodes, run_config)
    context = Context(1, SERVER_NODE, {}, RecordDict(), run_config)
    build_server(progress)(grid, context)
