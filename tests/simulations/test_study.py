"""What a study file becomes: cells with the settings it names, or one sentence about what cannot be."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fed_fsad.data.build import dealt_out
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import CheckpointError, ConfigError
from simulations.batch.budget import Limits
from simulations.batch.folder import only_command
from simulations.study.plan import LONGEST, Cell, plan
from simulations.study.run import study
from simulations.study.settings import load_study
from tests.conftest import write_set

REPOSITORY = Path(__file__).parents[2]
SHIPPED = sorted((REPOSITORY / "configs" / "studies").glob("*.yaml"))
BASE: dict[str, Any] = {
    "name": "tiny",
    "data": {"kind": "phantoms", "test_normal": 4, "test_abnormal": 4, "pool": 2},
    "hospitals": [
        {"name": "north", "holds": {"organs": ["oct"], "normal": 4, "abnormal": 0}},
        {"name": "south", "holds": {"organs": ["fundus"], "normal": 4, "abnormal": 0, "style": 1}},
    ],
    "methods": {"d24fad": {"teacher": {"name": "random"}, "image_size": 64, "local_steps": 1, "batch": 4}},
    "federation": {"rounds": 1},
    "evaluation": {"shots": [1, 2], "draws": 2},
}


def written(folder: Path, **keys: Any) -> Path:
    """A study file; without a key of that name it starts from BASE and has one seed."""
    raw = {"name": "question", "base": BASE, "seeds": 1, **keys}
    path = folder / "study.yaml"
    path.write_text(
        yaml.safe_dump({key: own for key, own in raw.items() if own is not None}, sort_keys=False), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Brain MRI slices that are noise."""
    train = {"normal": 180, "glioma": 32, "meningioma": 32, "pituitary": 32}
    counts = {**{f"train/{name}": count for name, count in train.items()}, **{f"test/{name}": 1 for name in train}}
    return write_set(tmp_path_factory.mktemp("mri"), counts)


def cells(folder: Path, **keys: Any) -> list[Cell]:
    path = written(folder, **keys)
    return plan(load_study(path), str(path))


# ---- what is planned


def test_every_combination_of_values_and_bundles_once_per_seed(tmp_path: Path) -> None:
    bundles = {"plain": None, "robust": {"federation.strategy.name": "fedmedian", "methods.d24fad.lr": 1e-5}}
    found = cells(tmp_path, grid={"federation.rounds": [2, 1], "server": bundles}, seeds=[3, 1], arms=["pooled"])
    assert [cell.name for cell in found] == [
        f"rounds-{rounds}_{server}_seed{seed}" for rounds in (2, 1) for server in ("plain", "robust") for seed in (3, 1)
    ]
    last = found[-1]
    assert last.labels == {"federation.rounds": "1", "server": "robust"}
    assert (last.config.seed, last.config.federation.rounds, last.config.arms) == (1, 1, ("pooled",))
    assert last.config.federation.strategy.name == "fedmedian"
    assert last.config.methods["d24fad"].lr == 1e-5
    assert (last.config.threads, last.config.evaluation.each_draw) == (1, True)
    assert found[0].config.evaluation.every == found[0].config.federation.rounds == 2
    assert found[0].config.federation.strategy.name == "fedavg"


def test_settings_of_the_command_line_stand_above_the_grid(tmp_path: Path) -> None:
    path = written(tmp_path, grid={"evaluation.draws": [1, 2]})
    found = plan(load_study(path, ["evaluation.draws=3", "hospitals.north.holds.normal=6"]), "study")
    assert {cell.config.evaluation.draws for cell in found} == {3}
    assert {cell.config.hospitals[0].holds.normal for cell in found} == {6}  # type: ignore[union-attr]


def test_only_and_skip_choose_combinations(tmp_path: Path) -> None:
    grid = {"federation.rounds": [1, 2, 3], "evaluation.draws": [1, 2]}
    kept = cells(tmp_path, grid=grid, only=[{"federation.rounds": [1, 2]}, {"evaluation.draws": 2}],
                 skip=[{"federation.rounds": 1, "evaluation.draws": 1}])  # fmt: skip
    assert {cell.point for cell in kept} == {("1", "2"), ("2", "1"), ("2", "2"), ("3", "2")}


def test_several_bases_are_an_axis_and_paths_are_meant_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({**BASE, "federation": {"rounds": 5}}), encoding="utf-8")
    found = cells(tmp_path, base=None, bases={"here": BASE, "there": "other.yaml"}, skip=[{"base": "here"}])
    assert [(cell.name, cell.config.federation.rounds) for cell in found] == [("there_seed0", 5)]


def test_long_labels_make_names_that_a_run_may_have(tmp_path: Path) -> None:
    bundles = {f"{'word ' * 20}{i}": None for i in range(2)}
    names = [cell.name for cell in cells(tmp_path, grid={"a": bundles, "b": bundles}, seeds=2)]
    assert len(set(names)) == 8
    assert max(map(len, names)) <= LONGEST


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_plan(path: Path) -> None:
    settings = load_study(path)
    found = plan(settings, path.name)
    assert settings.question
    assert path.stem == settings.name
    assert len({cell.seed for cell in found}) >= 3
    assert len({cell.point for cell in found}) >= 2 or settings.axis == "shots"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_plan_on_a_folder_as_the_page_says(path: Path, folder: Path) -> None:
    empty = {"hospitals": ("normal", "abnormal"), "epsilon": ("normal", "abnormal", "organs")}.get(path.stem, ())
    overrides = [f"data.root={folder}", *(f"partition.{key}=null" for key in empty)]
    base = path.parent / "bases" / "brain_mri.yaml"
    found = plan(load_study(path, overrides, base), path.name)
    assert len(found) == len(plan(load_study(path), path.name))
    for config in (found[0].config, found[-1].config):
        assert isinstance(config.data, FolderData)
        assert config.data.root == folder.resolve()
        assert config.partition is not None
        dealt = dealt_out(config.data, config.partition, config.seed, frozenset(), None)
        assert min(len(own.train) for own in dealt.values()) >= config.partition.least
    if empty:
        with pytest.raises(ConfigError, match=r"partition\.(normal|organs) is for phantoms; take it"):
            plan(load_study(path, overrides[:1], base), path.name)


def test_the_example_of_the_docs_is_a_study(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "studies.md").read_text(encoding="utf-8")
    (text,) = [block for block in re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.M | re.S) if "question:" in block]
    path = tmp_path / "study.yaml"
    path.write_text(text.replace("../demo.yaml", str(REPOSITORY / "configs" / "demo.yaml")), encoding="utf-8")
    found = plan(load_study(path), "docs")
    assert len(found) == (3 * 2 - 1) * 3
    assert {cell.config.evaluation.draws for cell in found} == {2}


# ---- what cannot be


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"grid": {"federation.roundz": [1]}},
            r"cell roundz-1_seed0: unknown key 'federation.roundz'; did you mean",
        ),
        ({"grid": {"federation.rounds": [1, 0]}}, r"cell rounds-0_seed0: federation.rounds: .* it is 0; change it"),
        ({"grid": {"hospitals.nort.role": ["train"]}}, r"there is no item 'nort' in that list; choose one of north, s"),
        ({"grid": {}}, "the grid is empty; name a config key and its values, or drop `grid`"),
        ({"grid": {"federation.rounds": []}}, "federation.rounds has no values; list one at least, or drop it"),
        ({"grid": {"federation.rounds": 3}}, "federation.rounds needs a list of values"),
        ({"grid": {"federation.rounds": [1, 1]}}, "federation.rounds holds a value twice"),
        ({"grid": {"methods": [{"d24fad": {}}]}}, "give each a name"),
        ({"grid": {"x": {"a b": None, "a-b": None}}}, "two cells would be called 'a-b_seed0'; name the values"),
        ({"grid": {"federation.rounds": [1]}, "only": [{"federation.round": 1}]}, "did you mean 'federation.rounds'"),
        ({"grid": {"federation.rounds": [1]}, "skip": [{"federation.rounds": 2}]}, "has no value '2'; choose from 1"),
        ({"grid": {"federation.rounds": [1]}, "skip": [{"federation.rounds": 1}]}, "`only` and `skip` leave no cell"),
        ({"grid": {"federation.rounds": [1]}, "axis": "round"}, "axis: 'round' is none; choose from"),
        ({"gird": {}}, "unknown key 'gird'; did you mean 'grid'"),
        ({"base": None}, "state either `base`, a config, or `bases`, several by name"),
        ({"base": "nowhere.yaml"}, r"nowhere.yaml: the config cannot be read \(No such file or directory\)"),
        ({"arms": ["locl"]}, "arms.0: .*'locl'; change it"),
        ({"seeds": 0}, "seeds: .*"),
    ],
)
def test_what_cannot_be_is_one_sentence(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        cells(tmp_path, **keys)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_study_is_refused_by_its_first_difference(tmp_path: Path) -> None:
    path, out = written(tmp_path, grid={"federation.rounds": [1]}), tmp_path / "out"

    def start(only: list[str]) -> None:
        study(load_study(path), str(path), out, Limits(1), only, print)

    with pytest.raises(ConfigError, match="--only nothing: no cell is called that; choose from rounds-1_seed0"):
        start(["nothing"])
    assert not out.exists()
    out.mkdir()
    (out / "photo.png").write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds files that are no study's; choose another --out"):
        start([])
    (out / "photo.png").unlink()
    plain = load_study(path).model_dump(mode="json")
    (out / "study.yaml").write_text(yaml.safe_dump({**plain, "seeds": [4]}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"holds another study: seeds.0 was 4 and is 0; choose another --out"):
        start([])
    changed = {**plain, "bases": {"base": {**BASE, "federation": {"rounds": 7}}}}
    (out / "study.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"another study: bases.base.federation.rounds was 7 and is 1"):
        start([])
    assert not (out / "runs").exists()


def test_two_commands_never_do_one_study_at_once(tmp_path: Path) -> None:
    path, out = written(tmp_path, grid={"federation.rounds": [1]}), tmp_path / "out"
    out.mkdir()
    plain = load_study(path).model_dump(mode="json")
    (out / "study.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    with (
        only_command(out, "study"),
        pytest.raises(CheckpointError, match=r"another command is doing this study in .*; wait until it has ended"),
    ):
        study(load_study(path), str(path), out, Limits(1), [], print)
    assert not (out / "runs").exists()
