"""The configs of the public real sets: each one plans on a tree of its class names; one runs on the real images."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fed_fsad import methods
from fed_fsad.config import Config, load_config
from fed_fsad.data.build import hospital_samples, server_samples
from fed_fsad.data.partition import NORMAL, classes_of
from fed_fsad.data.samples import Sample
from fed_fsad.data.settings import FolderData, FolderHolding
from fed_fsad.data.signs import load_signs
from fed_fsad.evaluation import categories, detection
from fed_fsad.evaluation.bed import TestBed
from fed_fsad.methods.method import part_of
from fed_fsad.privacy.admission import admit_records, admit_request
from fed_fsad.privacy.records import partition_records
from fed_fsad.progress import PlainProgress
from simulations.simulate import simulate
from tests.conftest import write_set

FOLDER = Path(__file__).parents[2] / "configs"
TRAIN = {
    "brain_mri": {"normal": 300, "glioma": 300, "meningioma": 300, "pituitary": 300},
    "retina": {"normal": 133, "grade1": 18, "grade2": 133, "grade3": 73, "grade4": 48},
    "chest_xray": {"normal": 345, "pneumonia": 333},
    "lung_histology": {"normal": 200, "adenocarcinoma": 200, "squamous_cell_carcinoma": 200},
}
"""Train images per class of the public sets as far as they are cleaned of copies."""

BASELINES = {
    "d24fad": {"knn", "position_nn", "fused", "knn_pooled", "raw_pixels"},
    "sdmad": {"zero_shot", "zero_shot_names", "linear_probe", "knn_pooled", "raw_pixels"},
}


class Planned:
    """Who gets which images under a config, on a generated tree with the classes and numbers of the real one."""

    def __init__(self, name: str, root: Path) -> None:
        split = {f"train/{label}": count for label, count in TRAIN[name].items()}
        write_set(root, {**split, **{f"test/{label}": 2 for label in TRAIN[name]}})
        self.config = load_config(FOLDER / f"{name}.yaml", [f"data.root={root}"])
        self.withheld = frozenset(self.config.evaluation.unseen_categories)
        shared = self.config.data, self.config.holdings
        self.pool, self.test = server_samples(*shared, self.config.seed, self.withheld, None)
        self.hospitals = {
            site: hospital_samples(*shared, site, self.config.seed, self.withheld, None)
            for site in self.config.holdings
        }


@pytest.fixture(scope="module", params=TRAIN)
def planned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return Planned(request.param, tmp_path_factory.mktemp(request.param))


def counted(samples: list[Sample]) -> Counter[str]:
    return Counter(name for sample in samples for name in classes_of(sample))


def test_every_config_for_folders_is_planned_here() -> None:
    configs = {path.stem: load_config(path) for path in FOLDER.glob("*.yaml")}
    for_folders = {name for name, config in configs.items() if isinstance(config.data, FolderData)}
    assert for_folders - {"own_images"} == TRAIN.keys(), "own_images.yaml is a template; test_own_data.py follows it"


def test_nothing_points_to_one_machine() -> None:
    for name in TRAIN:
        text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
        assert f"\n  root: data/{name}\n" in text
        assert f"fed-fsad simulate configs/{name}.yaml --data DIR" in text


def test_hospitals_differ_and_share_no_image(planned: Planned) -> None:
    own = {site: counted(samples) for site, samples in planned.hospitals.items()}
    sizes = sorted(count.total() for count in own.values())
    assert len(own) == 4
    assert 3 * sizes[0] <= sizes[-1], "one of them is small"
    parties = [planned.pool, planned.test, *planned.hospitals.values()]
    ids = [sample.id for samples in parties for sample in samples]
    assert len(ids) == len(set(ids))
    assert all(count[NORMAL] > 3 for count in own.values()), "everybody can train D²4FAD: supports and queries"
    lacking = {site: holds.lacks for site, holds in planned.config.holdings.items() if isinstance(holds, FolderHolding)}
    assert sum(map(bool, lacking.values())) == 1
    for site, count in own.items():
        names = {NORMAL if label == "normal" else label for label in TRAIN[planned.config.name]}
        assert count.keys() == names - planned.withheld - set(lacking[site])


def test_the_server_can_draw_every_support_set_and_tests_what_nobody_holds(planned: Planned) -> None:
    bed, settings = TestBed(tuple(planned.pool), tuple(planned.test)), planned.config.evaluation
    drawn = detection.plan(bed, settings, seed=0) + categories.plan(bed, settings, seed=0)
    assert {len([s for s in draw.support if s.is_normal]) for draw in drawn} == set(settings.shots)
    assert planned.withheld <= counted(planned.test).keys()
    assert not planned.withheld & counted(planned.pool).keys()


def test_every_category_has_signs(planned: Planned) -> None:
    config = planned.config
    (name,) = config.training["sdmad"].model_dump()["signs"]
    assert isinstance(config.data, FolderData)
    signs = load_signs(name)[config.data.task]
    assert set(signs.categories) == set(TRAIN[config.name]) - {"normal"}


def test_the_private_hospital_has_enough_records_for_its_budget(planned: Planned) -> None:
    private = [hospital for hospital in planned.config.hospitals if hospital.policy.privacy == "example"]
    assert len(private) == 1
    policy, samples = private[0].policy, planned.hospitals[private[0].name]
    assert (policy.epsilon, policy.delta) == (8, 1e-5)
    for name, settings in planned.config.training.items():
        method = methods.build(name, settings, planned.config.seed)
        trainable = method.trainable()
        parts = admit_request(policy, name, list(dict.fromkeys(map(part_of, trainable))), cohort=4)
        dims = sum(tensor.numel() for key, tensor in trainable.items() if part_of(key) in parts)
        records = partition_records(samples, method.episode, seed=0, unit=policy.unit)
        assert admit_records(policy, records, dims).rho < policy.largest_rho


@pytest.mark.slow
@pytest.mark.real_data
def test_one_round_on_real_brains_gives_every_figure(shared: Path, tmp_path: Path) -> None:
    small = ["federation.rounds=1", "evaluation.shots=[4]", "evaluation.draws=1"]
    config = load_config(FOLDER / "brain_mri.yaml", [f"data.root={shared / 'brain_mri'}", *small])
    run = simulate(config, tmp_path / "run", PlainProgress())
    summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "completed"
    assert summary["skipped_images"] == []
    assert all("sees different images alike" in text for text in summary["warnings"])
    for name, block in summary["methods"].items():
        assert_figures(block, BASELINES[name])
    assert summary["methods"]["d24fad"]["image_auroc"].keys() == {"4"}
    assert summary["methods"]["sdmad"]["image_auroc"].keys() == {"p1", "p2", "p3", "held_out", "binary"}
    assert_sites(config, summary["sites"])


def assert_figures(block: dict[str, Any], baselines: set[str]) -> None:
    assert block["arms"].keys() == {"federated", "pooled", "local", "untrained"}
    assert block["baselines"].keys() == baselines
    for figures in (block["image_auroc"], block["arms"], block["baselines"]):
        assert all(0 < value < 1 for value in figures.values())
    assert block["interval"][0] <= block["headline"] <= block["interval"][1]


def assert_sites(config: Config, sites: dict[str, Any]) -> None:
    assert sites.keys() == config.holdings.keys()
    for hospital in config.hospitals:
        site = sites[hospital.name]
        assert (site["rounds"], site["failures"]) == (1, 0)
        if hospital.policy.privacy == "example":
            assert 0 < site["epsilon"] <= hospital.policy.epsilon
            assert site["examples"] is None, "how many images it has is part of what it protects"
        else:
            assert site["examples"] > 0
            assert site["epsilon"] is None
