"""Whole federations under SCAFFOLD, Ditto, FedBN and fine-tuning, on hospitals that a partition made."""

import csv
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from fed_fsad import methods
from fed_fsad.config import parse_config
from fed_fsad.errors import ConfigError
from fed_fsad.methods.method import digest, part_of
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import Resume, RunDir
from server.checkpoint import load_checkpoint
from simulations.simulate import simulate
from tests.federation.test_local_parts import everything

TEXT = """
name: strategies
data: {kind: phantoms, test_normal: 4, test_abnormal: 6, pool: 4}
partition: {hospitals: 2, by: dirichlet, alpha: 1, organs: [oct], normal: 14, abnormal: 8, own_test: 0.3,
            wrong_labels: 0.25}
hospitals: {site-01: {policy: {release_metrics: true}}}
methods: {d24fad: {teacher: {name: random}, image_size: 64, local_steps: 1, batch: 4}}
federation: {rounds: 3}
evaluation: {shots: [2], draws: 1, every: 3}
arms: []
"""


def finished(folder: Path, *overrides: str, resume: Resume = "fresh") -> RunDir:
    return simulate(parse_config(TEXT, "strategies.yaml", overrides), folder, PlainProgress(), resume)


def one_round_back(run: RunDir) -> None:
    """What a server finds that lost its last round while its sites kept theirs."""
    (run.checkpoints / "round-0003.safetensors").unlink()
    latest, second = run.checkpoints / "latest.json", run.checkpoints / "round-0002.safetensors"
    sha256 = hashlib.sha256(second.read_bytes()).hexdigest()
    told = json.loads(latest.read_text(encoding="utf-8")) | {"round": 2, "file": second.name, "sha256": sha256}
    told["standing"]["variates"] = dict.fromkeys(told["standing"]["variates"], 2)
    latest.write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize(("name", "kept"), [("scaffold", "variates"), ("ditto", "personal")])
def test_a_server_that_lost_a_round_goes_on_to_the_same_bits(tmp_path: Path, name: str, kept: str) -> None:
    run = finished(tmp_path, f"federation.local.name={name}")
    before = everything(run)
    assert sum(f"d24fad.{kept}" in file for file in before) == 2 * 3
    one_round_back(run)
    finished(run.path, f"federation.local.name={name}", resume="require")
    assert everything(run) == before
    own = run.summary()["sites"]["site-01"]["evaluation"]["d24fad"]
    assert ("personal" in own) == (name == "ditto")
    assert ("its personal model" in (run.path / "report.html").read_text(encoding="utf-8")) == (name == "ditto")


def test_fedbn_leaves_normalisation_at_the_sites_and_fine_tuning_a_model(tmp_path: Path) -> None:
    run = finished(
        tmp_path, "federation.local={name: fedbn, fine_tune: 2}", "federation.rounds=1", "evaluation.every=1"
    )
    config = run.config()
    start = methods.build("d24fad", config.training["d24fad"], config.seed).snapshot()
    found = load_checkpoint(run.checkpoints, run.run_id, {"d24fad": start})
    assert found is not None
    moved = {part_of(n) for n, value in start.items() if not torch.equal(found.tensors["d24fad"][n], value)}
    assert moved == {"kernels", "weighting"}
    personal = [file for file in everything(run) if "d24fad.personal" in file]
    assert {Path(file).parts[1] for file in personal} == {"site-01", "site-02"}, "also where no figure leaves"
    assert "personal" in run.summary()["sites"]["site-01"]["evaluation"]["d24fad"]
    rows = list(csv.DictReader((run.path / "partition.csv").read_text(encoding="utf-8").splitlines()))
    assert Counter(row["hospital"] for row in rows if row["label"] != row["true_label"]).keys() == {"site-02"}
    report = (run.path / "report.html").read_text(encoding="utf-8")
    assert "How the train images were dealt out" in report
    assert "wrong labels among them" in report


def tensors(run: RunDir) -> dict[str, str]:
    """A digest of the tensors in every file of `everything`; names without the run's own id."""
    found = {}
    for name, content in everything(run).items():
        place = "/".join(part for part in Path(name).parts if not re.fullmatch("[0-9a-f]{16}", part))
        found[place] = digest(load(content))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("local", ["{name: scaffold}", "{name: fedbn, fine_tune: 1}"])
def test_ray_and_the_process_itself_give_equal_bits(tmp_path: Path, local: str) -> None:
    chosen = (f"federation.local={local}", "federation.rounds=2", "evaluation.every=2")
    here, ray = finished(tmp_path / "here", *chosen), finished(tmp_path / "ray", *chosen, "engine=ray")
    assert tensors(here) == tensors(ray)
    assert sum(name.startswith("sites/site-02") for name in tensors(here)) >= 1
    assert here.summary()["methods"] == ray.summary()["methods"]
    assert here.summary()["sites"]["site-01"]["evaluation"] == ray.summary()["sites"]["site-01"]["evaluation"]


@pytest.mark.parametrize(
    ("local", "others", "said"),
    [
        ("scafold", [], r"federation\.local\.name: input should be 'plain', 'fedprox', 'scaffold'"),
        (
            "scaffold",
            ["federation.strategy.name=fedadam"],
            r"scaffold, which averages, .* fedadam; set that to fedavg$",
        ),
        ("scaffold", ["privacy={mode: example, example: {epsilon: 8}}"], "scaffold, whose control variates are bare"),
        ("scaffold", ["privacy.secure_aggregation=on", "partition.hospitals=3"], "scaffold, whose control variates"),
        ("ditto", ["federation.local.fine_tune=3"], r"ditto, .* set federation\.local\.fine_tune to 0"),
        ("fedrep", [], r"fedrep and no part stays .* methods\.NAME\.local_parts"),
        ("fedrep", ["methods.d24fad.local_parts=[affine]"], r"no step; raise methods\.d24fad\.local_steps"),
        ("fedbn", ["methods={sdmad: {}}"], "fedbn and sdmad has no normalisation layer"),
        ("fedprox", ["federation.local.mu=0"], r"federation\.local\.mu: input should be greater than 0"),
    ],
)
def test_what_is_refused(local: str, others: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(TEXT, "strategies.yaml", [f"federation.local.name={local}", *others])
