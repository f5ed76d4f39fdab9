"""summary.json from hand-made events."""

from pathlib import Path
from typing import Any

import pytest

from fed_fsad.config import parse_config
from fed_fsad.errors import DataError
from fed_fsad.rundir import Event, RunDir
from fed_fsad.summary import recorded, summarise

TEXT = """
name: tiny
seed: 3
data: {kind: phantoms}
hospitals: [{name: north, holds: {organs: [oct]}}, {name: south, holds: {organs: [fundus]}}]
methods: {d24fad: {teacher: {name: random}}}
"""


def run_with(folder: Path, *events: Event, text: str = TEXT) -> RunDir:
    run = RunDir.create(folder, parse_config(text, "tiny.yaml"))
    for event in events:
        run.log(event)
    return run


def round_(number: int, seconds: float = 1.0, complete: bool = True) -> Event:
    return {
        "kind": "round", "round": number, "attempt": 1, "seconds": seconds, "bytes_up": 10, "bytes_down": 100,
        "replies": 2, "complete": complete, "rejected": {},
    }  # fmt: skip


def site(number: int, status: str = "ok", name: str = "north", **more: Any) -> Event:
    return {"kind": "site", "round": number, "site": name, "status": status, "reason": "", **more}


def figures(headline: float | None) -> dict[str, Any]:
    return {
        "headline": headline, "headline_name": "AUROC, 4 shots", "interval": [0.6, 0.8], "image_auroc": {"4": headline},
        "image_auroc_sd": {"4": 0.01}, "average_precision": 0.5, "pixel_auroc": None, "pixel_aupro": None, "extra": {},
        "left_out": 0,
    }  # fmt: skip


def evaluation(number: int, headline: float | None) -> Event:
    return {"kind": "evaluation", "round": number, "method": "d24fad", "final": False, **figures(headline)}


def arm(name: str, owner: str | None, headline: float | None) -> Event:
    return {"kind": "arm", "arm": name, "site": owner, "method": "d24fad", **figures(headline)}


def test_a_repeated_round_counts_once_with_its_last_lines(tmp_path: Path) -> None:
    run = run_with(tmp_path, round_(1, 2.0), round_(2, 50.0, complete=False), round_(2, 4.0))
    summary = summarise(run, "completed")
    assert summary["rounds"] == 2
    assert summary["seconds"] == {"total": 6.0, "per_round": 3.0}
    assert summary["bytes"] == {"up": 20, "down": 200}
    assert (summary["status"], summary["name"], summary["seed"], summary["engine"]) == (
        "completed", "tiny", 3, "inprocess",
    )  # fmt: skip


def test_a_round_that_was_never_aggregated_is_no_round(tmp_path: Path) -> None:
    run = run_with(tmp_path, round_(1), round_(2, complete=False))
    assert summarise(run, "failed", "why")["rounds"] == 1
    assert summarise(run, "failed", "why")["error"] == "why"


def test_an_empty_run_has_no_figures_rather_than_zeros(tmp_path: Path) -> None:
    summary = summarise(run_with(tmp_path), "failed", "nobody came")
    assert summary["rounds"] == 0
    assert summary["seconds"] == {"total": 0, "per_round": None}
    assert summary["methods"] == {"d24fad": {}}
    assert summary["sites"]["north"] == {
        "rounds": 0, "failures": 0, "faults": {}, "suspended": None, "bytes": {"up": 0, "down": 0}, "examples": None,
        "epsilon": None, "delta": None, "unit": None, "claim": None, "local": {}, "evaluation": {},
        "guarantee": "Nothing trained on this site's images left it in this run.",
    }  # fmt: skip


def test_a_site_is_summed_up_by_its_last_answers(tmp_path: Path) -> None:
    account = {"delta": 1e-5, "unit": "image", "claim": "a claim"}
    run = run_with(
        tmp_path,
        site(1, "error"),
        site(1, methods={"d24fad": {"loss": 1.0, "examples": 7}, "sdmad": {"examples": 9}}, epsilon=1.0, **account),
        site(2, methods={"d24fad": {}}, epsilon=2.0, **account),
        site(3, "no reply"),
        site(4, "rejected"),
        site(5, "refused"),
        site(6, "budget_spent"),
        site(1, name="south", methods={"d24fad": {"examples": 7}, "sdmad": {"examples": 9}}),
    )
    north, south = (summarise(run, "completed")["sites"][name] for name in ("north", "south"))
    assert (north["rounds"], north["failures"], north["examples"]) == (2, 3, None)
    assert (north["epsilon"], north["delta"], north["unit"], north["claim"]) == (2.0, 1e-5, "image", "a claim")
    assert (south["rounds"], south["failures"], south["examples"], south["epsilon"]) == (1, 0, 9, None)


def test_what_a_rejected_or_repeated_update_cost_is_not_forgotten(tmp_path: Path) -> None:
    account = {"delta": 1e-5, "unit": "image", "claim": "c"}
    rejected = run_with(tmp_path / "1", site(1, epsilon=1.0, **account), site(2, "rejected", epsilon=3.0, **account))
    repeated = run_with(tmp_path / "2", site(1, epsilon=1.0, **account), site(1, "no reply"))
    assert summarise(rejected, "completed")["sites"]["north"]["epsilon"] == 3.0
    assert summarise(repeated, "completed")["sites"]["north"]["epsilon"] == 1.0


class Watched(dict[str, Any]):
    """A line of the log that counts how often it is looked at."""

    looks = 0

    def get(self, key: str, default: Any = None) -> Any:
        Watched.looks += 1
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        Watched.looks += 1
        return super().__getitem__(key)


def test_twice_the_sites_are_twice_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def looks(sites: int) -> int:
        names = [f"h{place:03}" for place in range(sites)]
        hospitals = ", ".join(f"{{name: {name}, holds: {{organs: [oct]}}}}" for name in names)
        run = run_with(tmp_path / str(sites), text=f"{TEXT.replace(TEXT.splitlines()[4], f'hospitals: [{hospitals}]')}")
        events = [Watched(site(1, "budget_spent" if place % 2 else "ok", name)) for place, name in enumerate(names)]
        monkeypatch.setattr(RunDir, "events", lambda self: events)
        Watched.looks = 0
        summary = summarise(run, "completed")
        assert [own["rounds"] for own in summary["sites"].values()] == [1, 0] * (sites // 2)
        return Watched.looks

    assert looks(40) == 2 * looks(20)


def test_arms_baselines_and_the_untrained_start(tmp_path: Path) -> None:
    run = run_with(
        tmp_path,
        evaluation(0, 0.5),
        evaluation(1, 0.7),
        {**evaluation(1, 0.72), "final": True},
        {"kind": "baseline", "method": "d24fad", "name": "knn", **figures(0.81)},
        {"kind": "baseline", "method": "d24fad", "name": "raw_pixels", **figures(None)},
        arm("pooled", None, 0.8),
        arm("local", "north", 0.6),
        arm("local", "south", 0.7),
    )
    summary = summarise(run, "completed")
    block = summary["methods"]["d24fad"]
    assert block["headline"] == 0.72
    assert block["arms"] == {
        "federated": 0.72, "pooled": 0.8, "local": pytest.approx(0.65), "untrained": 0.5,
    }  # fmt: skip
    assert block["baselines"] == {"knn": 0.81, "raw_pixels": None}
    assert {label: own["4"] for label, own in block["each"].items()} == {
        "federated": 0.72, "untrained": 0.5, "pooled": 0.8, "local": pytest.approx(0.65),
        "knn": 0.81, "raw_pixels": None,
    }  # fmt: skip
    assert [summary["sites"][name]["local"] for name in ("north", "south")] == [{"d24fad": 0.6}, {"d24fad": 0.7}]


def test_figures_that_do_not_exist_are_none_and_not_in_a_mean(tmp_path: Path) -> None:
    run = run_with(tmp_path, evaluation(2, None), arm("local", "north", None), arm("local", "south", 0.7))
    block = summarise(run, "completed")["methods"]["d24fad"]
    assert block["arms"] == {"federated": None, "local": 0.7}, "no round 0, no untrained figure"
    assert block["pixel_auroc"] is None


def test_warnings_and_skipped_images_are_said_once(tmp_path: Path) -> None:
    image = {"name": "a.png", "reason": "truncated"}
    warnings: list[Event] = [{"kind": "warning", "round": 1, "text": text} for text in ("late", "late", "old")]
    summary = summarise(run_with(tmp_path, *warnings, {"kind": "skipped", "images": [image]}), "completed")
    assert (summary["warnings"], summary["skipped_images"]) == (["late", "old"], [image])


def test_seeded_privacy_noise_is_admitted(tmp_path: Path) -> None:
    assert summarise(run_with(tmp_path / "a"), "completed")["insecure_noise"] is False
    seeded = run_with(tmp_path / "b", text=TEXT + "privacy: {insecure_noise_seed: 1}")
    assert summarise(seeded, "completed")["insecure_noise"] is True


@pytest.mark.parametrize(
    ("error", "said"),
    [(DataError("no images; add some"), "no images; add some"), (ZeroDivisionError("x"), "an unexpected Zero")],
)
def test_work_that_fails_leaves_a_summary_and_a_report_that_say_so(tmp_path: Path, error: Exception, said: str) -> None:
    run = run_with(tmp_path)
    with pytest.raises(type(error)), recorded(run):
        raise error
    assert run.summary()["status"] == "failed"
    assert run.summary()["error"].startswith(said)
    assert said in (tmp_path / "report.html").read_text()


def test_work_that_ends_well_is_completed_and_an_interrupted_run_is_neither(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    with pytest.raises(KeyboardInterrupt), recorded(run):
        raise KeyboardInterrupt
    assert run.summary() == {}
    with recorded(run):
        pass
    assert run.summary()["status"] == "completed"
    assert RunDir.resume(tmp_path, run.config()).summary()["status"] == "completed"
    with pytest.raises(DataError), recorded(run):
        raise DataError("a test image is also in train")
    assert run.summary()["status"] == "completed", "what is finished stays finished, whatever a resume meets"
    run.mark_running()
    with pytest.raises(DataError), recorded(run):
        raise DataError("an arm cannot be trained")
    assert run.summary()["status"] == "failed", "but a run that has work left can fail in it"
