"""An external validation site in a federation: it scores every model on images of its own and trains none."""

from pathlib import Path
from typing import Any

import yaml

from fed_fsad.rundir import RunDir
from tests.federation.test_bad_input import SETTINGS, Desk
from tests.server.fakes import lines


def test_a_predict_only_hospital_sends_figures_and_leaves_the_model_alone(tmp_path: Path) -> None:
    eye: dict[str, Any] = {"name": "eye", "holds": {}, "role": "predict-only", "policy": {"release_metrics": True}}
    changed = {**SETTINGS, "hospitals": [*SETTINGS["hospitals"], eye], "federation": {"rounds": 2}}
    watched, alone = Desk(tmp_path / "watched"), Desk(tmp_path / "alone")
    watched.config.write_text(yaml.safe_dump(changed), encoding="utf-8")
    silent = {**changed, "hospitals": [*SETTINGS["hospitals"], {**eye, "policy": {}}]}
    alone.config.write_text(yaml.safe_dump(silent), encoding="utf-8")
    for desk in (watched, alone):
        ended = desk.simulate("--set", "arms=[local]")
        assert (ended.code, ended.err) == (0, "")
    told = lines(RunDir(watched.run), "site_evaluation")
    assert [(line["round"], line["site"]) for line in told] == [(0, "eye"), (1, "eye"), (2, "eye")]
    assert all(0 <= line["headline"] <= 1 for line in told)
    assert lines(RunDir(alone.run), "site_evaluation") == [], "its policy does not release them"
    site = watched.summary()["sites"]["eye"]
    assert (site["failures"], site["examples"], site["local"]) == (0, None, {}), "nobody trains on its images"
    assert site["evaluation"]["d24fad"]["round"] == 2
    checkpoints = [
        sorted((desk.run / "checkpoints").glob("*.safetensors"))[-1].read_bytes() for desk in (watched, alone)
    ]
    assert checkpoints[0] == checkpoints[1], "whether it tells its figures changes no bit of the model"
