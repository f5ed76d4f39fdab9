"""A partition in the config: a few lines make the hospitals, and mistakes are named."""

import pytest

from fed_fsad.config import parse_config, resolved_yaml
from fed_fsad.data.plan import Allotted
from fed_fsad.errors import ConfigError

TEXT = """
name: dealt
data: {kind: phantoms}
partition: {hospitals: 12, by: dirichlet}
methods: {d24fad: {}}
"""


def test_the_hospitals_follow_from_the_partition_and_survive_the_run_directory() -> None:
    config = parse_config(TEXT, "x", ["hospitals.site-11.role=predict-only", "partition.alpha=0.1"])
    assert [hospital.name for hospital in config.hospitals[::11]] == ["site-01", "site-12"]
    assert len(config.trainers) == 11
    assert config.holdings["site-03"] == Allotted(plan=config.partition)
    assert parse_config(resolved_yaml(config), "again") == config
    listed = parse_config(TEXT + "hospitals: [{name: site-02, policy: {release_metrics: true}}]", "x")
    assert [hospital.policy.release_metrics for hospital in listed.hospitals] == [False, True] + [False] * 10


def test_what_every_hospital_says_holds_for_all_who_do_not_say_otherwise() -> None:
    own = ["hospitals.every.policy.smallest_cohort=2", "hospitals.site-02={role: predict-only, policy: {unit: image}}"]
    config = parse_config(TEXT, "x", own)
    assert len(config.hospitals) == 12
    assert [hospital.policy.smallest_cohort for hospital in config.hospitals] == [2, 1] + [2] * 10
    assert config.hospitals[1].role == "predict-only"
    assert parse_config(resolved_yaml(config), "again") == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("partition.hospitals=many", r"x: partition\.hospitals: input should be a valid integer"),
        ("partition.by=organs", r"x: partition\.by: input should be 'organ', 'dirichlet'"),
        ("partition.alhpa=1", r"x: unknown key 'partition\.alhpa'; did you mean 'alpha'\?"),
        ("partition.alpha=0", r"x: partition\.alpha: input should be greater than 0"),
        ("hospitals.site-13.role=train", r"x: hospitals: partition makes no hospital 'site-13'; did you mean"),
        ("hospitals.site-01.holds={organs: [oct]}", r"x: hospitals: 'site-01' is dealt its images by partition; take"),
        ("hospitals.site-01.rule=train", r"x: unknown key 'hospitals\.0\.rule'; did you mean 'role'\?"),
        ("partition.wrong_labels=2", r"x: partition\.wrong_labels\.site-12: input should be less than or equal to 1"),
        ("partition.tiny.site-13=4", r"x: partition: tiny: partition makes no hospital 'site-13'; did you mean 'site-"),
        ("partition.tiny.0=4", r"x: partition: tiny: partition makes no hospital '0'; choose from every, site-01"),
        ("partition.lacks=[glioma]", r"x: partition\.lacks: input should be a valid dictionary"),
        (
            "partition.by=column",
            r"x: partition\.by: column needs a manifest, and phantoms have none; choose another one",
        ),
    ],
)
def test_what_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(TEXT, "x", [override])


def test_numbers_by_hospital_are_written_out_in_full() -> None:
    bare = ["partition.tiny=9", "partition.missing=1", "partition.wrong_labels=0.2"]
    one = parse_config(TEXT, "x", bare).partition
    chosen = ["partition.tiny.1=9", "partition.missing.every=1", "partition.wrong_labels={site-12: 0.2}"]
    assert one == parse_config(TEXT, "x", chosen).partition
    assert one is not None
    assert (one.tiny, one.missing, one.wrong_labels) == ({"site-01": 9}, {"every": 1}, {"site-12": 0.2})
    none = parse_config(TEXT, "x", [f"partition.{key}=null" for key in ("tiny", "missing", "wrong_labels")])
    assert none == parse_config(TEXT, "x")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{kind: folder, root: /nowhere, columns: [scanner]}", None),
        ("{kind: folder, root: /nowhere}", r"column: 'scanner' is not listed under data\.columns; choose from site"),
        ("{kind: folder, root: /nowhere, columns: [scaner]}", r"'scanner' is not listed .*; did you mean 'scaner'"),
        ("{kind: folder, root: /nowhere, columns: [Label]}", r"'Label' is a column that every manifest may have"),
        ("{kind: collection, tasks: {a: {root: /x, columns: [scanner]}, b: {root: /y}}}", "'scanner' is not listed"),
    ],
)
def test_a_partition_by_a_column_needs_that_column(data: str, said: str | None) -> None:
    overrides = [f"data={data}", "partition={hospitals: 2, by: column, column: scanner}"]
    if said is None:
        assert parse_config(TEXT, "x", overrides).partition
        return
    with pytest.raises(ConfigError, match=said):
        parse_config(TEXT, "x", overrides)


@pytest.mark.parametrize("key", ["organs=[oct]", "normal=3", "abnormal=3"])
def test_phantom_keys_are_for_phantoms(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"partition\.{key.split('=')[0]} is for phantoms; take it out"):
        parse_config(TEXT, "x", [f"partition.{key}", "data={kind: folder, root: /nowhere}"])
