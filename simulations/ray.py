"""Flower's own simulation engine: the same two apps in Ray actors, started by `flwr run` on a private SuperLink."""

from fed_fsad.config import Config
from fed_fsad.progress import Progress
from fed_fsad.provision.contents import write_app
from fed_fsad.rundir import RunDir
from server.superlink import SuperLink, free_port


def run_on_ray(config: Config, run: RunDir, progress: Progress) -> None:
    """Train the federation of `config` on Ray. Raises FederationError when the run does not complete."""
    run = RunDir(run.path.resolve())  # Flower's processes work in folders of their own
    home = run.path / "flower"
    superlink = SuperLink(home, home, free_port())
    write_app(home / "app", config.name)
    superlink.start(["--insecure", "--simulation"])
    try:
        identity = superlink.submit(home / "app", run, "--federation-config", resources(config))
        superlink.follow(run, identity, progress)
    finally:
        superlink.daemon.stop()


def resources(config: Config) -> str:
    """How many nodes there are and what each works with, in the words of `flwr run --federation-config`."""
    given = {
        "num-supernodes": len(config.hospitals),
        "client-resources-num-cpus": config.threads,
        "client-resources-num-gpus": config.ray_gpus,
    }
    return " ".join(f"{key}={value}" for key, value in given.items())
