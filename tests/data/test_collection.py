"""Several data sets in one federation: shared out set by set, capped by class, each with a pool of its own."""

from collections import Counter
from pathlib import Path

import pytest

from fed_fsad.config import parse_config, resolved_yaml
from fed_fsad.data.build import found, hospital_samples, server_samples, skipped
from fed_fsad.data.samples import Sample
from fed_fsad.data.settings import CollectionData, CollectionHolding
from fed_fsad.errors import ConfigError, DataError
from tests.conftest import write_image, write_set

NOBODY: frozenset[str] = frozenset()


@pytest.fixture
def data(tmp_path: Path) -> CollectionData:
    """Three data sets of two or three classes."""
    for number, (name, classes) in enumerate({"brain": ("glioma", "cyst"), "eye": ("drusen",), "lung": ()}.items()):
        for split, count in (("train", 16), ("test", 6)):
            write_set(tmp_path / name, {f"{split}/{one}": count for one in classes})
            for i in range(count):  # images that no other set holds
                write_image(
                    tmp_path / name / split / "normal" / f"{i:03}.png", 1000 * (number + 1) + i + 100 * len(split)
                )
        for split in ("train", "test"):
            for path in sorted((tmp_path / name / split).rglob("*.png")):
                if path.parent.name != "normal":
                    write_image(path, 9000 + 500 * number + hash_of(path.relative_to(tmp_path)))
    raw = {"kind": "collection", "tasks": {name: {"root": tmp_path / name} for name in ("brain", "eye", "lung")}}
    return CollectionData.model_validate({**raw, "pool": 3, "test_cap": 4})


def hash_of(path: Path) -> int:
    """A different small number for every file of the fixture."""
    return sum(i * byte for i, byte in enumerate(path.as_posix().encode(), start=1)) * 7919 % 100_003


def held(**tasks: tuple[str, ...]) -> dict[str, CollectionHolding]:
    return {site: CollectionHolding(kind="collection", tasks=own, cap=2) for site, own in tasks.items()}


def classes(samples: list[Sample]) -> Counter[tuple[str, str]]:
    return Counter((one.task, name) for one in samples for name in one.categories or ("normal",))


def test_hospitals_get_their_tasks_and_no_more_than_their_cap(data: CollectionData) -> None:
    holdings = held(north=("brain", "eye"), south=("brain",))
    north, south = (hospital_samples(data, holdings, site, 0, NOBODY, "lung") for site in ("north", "south"))
    assert set(classes(north).values()) == {2}
    assert set(classes(north)) == {
        ("brain", "normal"), ("brain", "glioma"), ("brain", "cyst"), ("eye", "normal"), ("eye", "drusen")
    }  # fmt: skip
    assert not {one.id for one in north} & {one.id for one in south}
    assert hospital_samples(data, dict(reversed(holdings.items())), "north", 0, NOBODY, "lung") == north
    assert hospital_samples(data, holdings, "north", 1, NOBODY, "lung") != north


def test_the_server_tests_on_held_tasks_and_the_unseen_one(data: CollectionData) -> None:
    holdings = held(north=("brain",))
    pool, test = server_samples(data, holdings, 0, NOBODY, "lung")
    assert {one.task for one in test} == {one.task for one in pool} == {"brain", "lung"}
    assert set(classes(test).values()) == {4}
    assert classes(pool)["lung", "normal"] == 3
    mine = hospital_samples(data, holdings, "north", 0, NOBODY, "lung")
    assert not {one.id for one in pool} & {one.id for one in (*mine, *test)}
    assert server_samples(data, holdings, 7, NOBODY, "lung")[1] == test


def test_withheld_categories_are_tested_and_never_trained_on(data: CollectionData) -> None:
    holdings = held(north=("brain", "eye"))
    pool, test = server_samples(data, holdings, 0, frozenset({"cyst"}), None)
    mine = hospital_samples(data, holdings, "north", 0, frozenset({"cyst"}), None)
    assert ("brain", "cyst") in classes(test)
    assert ("brain", "cyst") not in classes(mine) + classes(pool)


def test_names_that_do_not_exist(data: CollectionData) -> None:
    with pytest.raises(ConfigError, match="task of hospital 'north': 'brian' does not exist; did you mean 'brain'"):
        hospital_samples(data, held(north=("brian",)), "north", 0, NOBODY, None)
    with pytest.raises(ConfigError, match="unseen_task 'eye' is held by hospital 'north'; take it from its tasks"):
        hospital_samples(data, held(north=("eye",)), "north", 0, NOBODY, "eye")
    with pytest.raises(ConfigError, match="unseen_task 'ear' does not exist"):
        server_samples(data, held(north=("brain",)), 0, NOBODY, "ear")
    with pytest.raises(ConfigError, match="withheld category 'cysts' does not exist; did you mean 'cyst'"):
        server_samples(data, held(north=("brain",)), 0, frozenset({"cysts"}), None)


def test_a_task_without_test_images_is_named(data: CollectionData, tmp_path: Path) -> None:
    write_set(tmp_path / "bare", {"train/normal": 8})
    bare = CollectionData.model_validate({"kind": "collection", "tasks": {"bare": {"root": tmp_path / "bare"}}})
    with pytest.raises(DataError, match="bare has no test images; put some into test/CLASS"):
        server_samples(bare, held(north=("bare",)), 0, NOBODY, None)


def test_what_is_found_and_skipped_is_that_of_every_set(data: CollectionData, tmp_path: Path) -> None:
    (tmp_path / "eye" / "train" / "normal" / "damaged.png").write_bytes(b"not an image")
    assert [one.name for one in skipped(data)] == ["train/normal/damaged.png"]
    said = found(data) or ""
    assert said.startswith("brain: Class folders")
    assert "; lung: Class folders" in said


def test_a_config_with_a_collection_survives_being_written_down(tmp_path: Path) -> None:
    text = f"""
name: several
data: {{kind: collection, pool: 8, tasks: {{brain: {{root: {tmp_path}/brain}}, eye: {{root: {tmp_path}/eye}}}}}}
hospitals: [{{name: north, holds: {{tasks: [brain]}}}}]
methods: {{d24fad: {{}}}}
"""
    config = parse_config(text, "several.yaml", ["data.tasks.eye.normal=[healthy]"])
    assert isinstance(config.data, CollectionData)
    assert (config.data.tasks["eye"].normal, config.data.tasks["eye"].task) == (("healthy",), "eye")
    assert config.data.tasks["brain"].pool == 8
    assert parse_config(resolved_yaml(config), "again") == config
    with pytest.raises(ConfigError, match=r"unknown key 'data\.tasks\.eye\.rot'; did you mean 'root'"):
        parse_config(text, "several.yaml", ["data.tasks.eye.rot=x"])
