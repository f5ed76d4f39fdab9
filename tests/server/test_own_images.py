"""The server's own images in a federation of real hospitals, of which it knows nothing but the names."""

from pathlib import Path

import pytest

from fed_fsad.config import Config, parse_config, resolved_yaml
from fed_fsad.data.build import server_samples
from fed_fsad.data.samples import Sample
from fed_fsad.errors import ConfigError
from tests.conftest import write_set

REAL = """
name: real
data: {kind: phantoms, test_normal: 2, test_abnormal: 4, pool: 8}
hospitals: [{name: north}, {name: south}]
methods: {d24fad: {teacher: {name: random}}}
"""
SIMULATED = REAL.replace("{name: north}", "{name: north, holds: {organs: [oct]}}").replace(
    "{name: south}", "{name: south, holds: {organs: [fundus, oct]}}"
)


def own(config: Config) -> tuple[list[Sample], list[Sample]]:
    unseen = config.evaluation
    withheld = frozenset(unseen.unseen_categories)
    return server_samples(config.data, config.holdings, config.seed, withheld, unseen.unseen_task)


def test_phantoms_are_those_of_the_simulation_once_the_organs_are_named() -> None:
    real = parse_config(REAL, "real.yaml", ["data.organs=[fundus, oct]", "evaluation.unseen_task=brain_mri"])
    simulated = parse_config(SIMULATED, "simulated.yaml", ["evaluation.unseen_task=brain_mri"])
    assert own(real) == own(simulated)
    assert own(real)[0], "there is something to compare"


def test_a_config_of_names_comes_back_as_it_was() -> None:
    config = parse_config(REAL, "real.yaml")
    assert parse_config(resolved_yaml(config), "config.yaml") == config
    assert (config.holdings, config.trainers) == ({}, ("north", "south"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([], "no hospital states what it holds; name the organs that the server tests on: data.organs"),
        (["data.organs=[octt]"], "organ of data.organs: 'octt' does not exist; did you mean 'oct'?"),
        (["data.organs=[oct]", "evaluation.unseen_task=oct"], "unseen_task 'oct' is tested anyway"),
    ],
)
def test_organs_that_cannot_be_meant_are_named(changes: list[str], words: str) -> None:
    config = parse_config(REAL, "real.yaml", changes)
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        own(config)


def test_from_folders_the_server_keeps_all_its_train_images_as_supports(tmp_path: Path) -> None:
    root = write_set(tmp_path / "images", {"train/normal": 8, "train/scar": 3, "test/normal": 2, "test/scar": 2})
    text = REAL.replace(
        "{kind: phantoms, test_normal: 2, test_abnormal: 4, pool: 8}", f"{{kind: folder, root: {root}, task: skin}}"
    )
    pool, test = own(parse_config(text, "real.yaml"))
    assert (len(pool), len(test)) == (11, 4), "there is no simulated hospital to leave anything for"
    dealt = text.replace("{name: north}", "{name: north, holds: {}}").replace(
        "{name: south}", "{name: south, holds: {}}"
    )
    assert len(own(parse_config(dealt, "simulated.yaml"))[0]) == 2
