"""site.yaml: what it may say, what it means, and one clear sentence when it says something else."""

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from clients.settings import SiteSettings, load_settings
from clients.site import open_site, own_samples, site_name, site_role
from fed_fsad.config import parse_config
from fed_fsad.data.build import hospital_samples
from fed_fsad.errors import ConfigError

SITE = """
name: north
data: {kind: phantoms, organs: [oct, fundus], style: 2, normal: 3, abnormal: 4, seed: 5%s}
policy: policy.yaml
state: state
"""
RUN = """
name: run
seed: 5
data: {kind: phantoms, pose_jitter: 0.5}
hospitals:
  - {name: south, holds: {organs: [liver_ct], normal: 2, abnormal: 2}}
  - {name: north, holds: {organs: [oct, fundus], style: 2, normal: 3, abnormal: 4}}
methods: {d24fad: {}}
evaluation: {unseen_categories: [hard exudates]}
"""
SERVER = "server: {address: 'fed.example.org:8443', ca: ca.crt, key: ~/node.key}\n"


def loaded(folder: Path, text: str) -> SiteSettings:
    (folder / "site.yaml").write_text(text)
    return load_settings(folder / "site.yaml")


def test_a_rehearsal_draws_the_very_images_of_the_simulation(tmp_path: Path) -> None:
    config = parse_config(RUN, "run.yaml")
    unseen = frozenset(config.evaluation.unseen_categories)
    wanted = hospital_samples(config.data, config.holdings, "north", config.seed, unseen, None)
    same = loaded(tmp_path, SITE % ", pose_jitter: 0.5, withheld: [hard exudates]")
    assert [sample.id for sample in own_samples(same)] == [sample.id for sample in wanted]
    assert len(wanted) == 14
    for change in ("", ", pose_jitter: 0.5", ", withheld: [hard exudates]"):
        other = own_samples(loaded(tmp_path, SITE % change))
        assert [sample.id for sample in other] != [sample.id for sample in wanted], change


def test_the_name_is_part_of_what_is_drawn(tmp_path: Path) -> None:
    north = own_samples(loaded(tmp_path, SITE % ""))
    south = own_samples(loaded(tmp_path, SITE.replace("north", "south") % ""))
    assert not {sample.id for sample in north} & {sample.id for sample in south}


def test_every_path_is_relative_to_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/engineer")
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "site.yaml").write_text(
        "name: x\ndata: {kind: folder, root: ../images, task: oct}\npolicy: policy.yaml\nstate: /srv/state\n" + SERVER
    )
    monkeypatch.chdir(tmp_path / "kit")
    found = load_settings(Path("site.yaml"))
    assert found.data.kind == "folder"
    assert found.server is not None
    assert [found.data.root, found.policy, found.state] == [
        tmp_path / "images",
        tmp_path / "kit" / "policy.yaml",
        Path("/srv/state"),
    ]
    assert (found.server.ca, found.server.key) == (tmp_path / "kit" / "ca.crt", Path("/home/engineer/node.key"))
    assert (found.server.host, found.server.port) == ("fed.example.org", 8443)


def test_a_node_tells_its_role_and_an_opened_site_has_it(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("privacy: off\n")
    (tmp_path / "site.yaml").write_text(SITE % "" + "role: predict-only\n")
    context = Context(1, 2, {"site-config": str(tmp_path / "site.yaml")}, RecordDict(), {})
    assert (site_name(context), site_role(context)) == ("north", "predict-only")
    site = open_site(context)
    assert (site.role, site.simulated, site.state) == ("predict-only", False, tmp_path / "state")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SITE % "" + "rolle: train\n", r"unknown key 'rolle'; did you mean 'role'\?"),
        (SITE % "" + "role: observer\n", "role: input should be 'train' or 'predict-only', but it is 'observer'"),
        (SITE % ", organ: x", r"unknown key 'data\.organ'; did you mean 'organs'\?"),
        (SITE.replace("phantoms", "dicom") % "", "data: .*'folder'.*'phantoms'"),
        (SITE % "" + "server: {address: fed.example.org, ca: a, key: b}\n", r"server\.address: .*fed\.example\.org"),
        (SITE % "" + "server: {address: 'fed.example.org:70000', ca: a, key: b}\n", "there is no port 70000"),
        (SITE % "" + "server: {address: 'fed.example.org:443', ca: a}\n", r"the key 'server\.key' is missing; add it"),
        ("name: [", "not valid YAML"),
        ("", "site.yaml"),
    ],
)
def test_what_is_wrong_in_it_is_said_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        loaded(tmp_path, text)
    assert str(tmp_path / "site.yaml") in str(caught.value)


def test_an_organ_nobody_can_draw_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"organ of hospital 'north': 'occt' does not exist; did you mean 'oct'\?"):
        own_samples(loaded(tmp_path, SITE.replace("[oct, fundus]", "[occt]") % ""))


def test_a_missing_file_is_called_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"site\.yaml cannot be read \(No such file or directory\)"):
        load_settings(tmp_path / "site.yaml")
