"""The report as a page: whole, safe, and made from whatever a run has left. Its figures: test_report_figures.py."""

import base64
import json
import re
import shutil
from pathlib import Path

import pytest

from fed_fsad.errors import DataError
from fed_fsad.evaluation.report import write_report
from tests.evaluation.fake_run import METHODS, NASTY, SITES, edit, ledger, summary
from tests.evaluation.reading import SECTIONS, Page, read

INSECURE = "this run protects nobody"


def test_it_is_one_file_that_loads_and_runs_nothing(page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    for attribute in ("src", "href", "xlink:href", "action", "srcset", "data"):
        assert all(value.startswith(("#", "data:")) for value in page.values(attribute))
    assert all(found.startswith("#") for found in re.findall(r"url\(\s*[\"']?([^)]*)", page.html))
    assert "@import" not in page.html
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert any("default-src 'none'" in value for value in page.values("content"))


def test_it_is_well_formed_and_its_ids_are_unique(page: Page) -> None:
    assert page.open == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = [value[1:] for name in ("href", "xlink:href") for value in page.values(name) if value.startswith("#")]
    targets += re.findall(r"url\(#([^)]*)\)", page.html)
    assert set(targets) <= set(ids)


def test_every_section_is_there_and_reachable(page: Page) -> None:
    assert [attrs.get("id") for tag, attrs in page.tags if tag == "section"] == list(SECTIONS)
    assert {f"#{name}" for name in SECTIONS} <= set(page.values("href"))


def test_pictures_are_the_files_of_the_gallery(page: Page, finished: Path) -> None:
    shown = {base64.b64decode(value.removeprefix("data:image/png;base64,")) for value in page.values("src")}
    assert shown == {path.read_bytes() for path in finished.glob("evaluation/*/gallery/*.png")}
    assert page.text.count("nothing to mark") == len(METHODS)
    assert page.text.count("brain_") >= 8


@pytest.mark.parametrize("path", ["../../summary.json", "gallery/absent.png", "/etc/hostname", "details.json"])
def test_a_picture_that_is_no_png_of_the_gallery_is_not_embedded(run: Path, path: str) -> None:
    details = run / "evaluation" / "d24fad" / "details.json"
    case = json.loads(details.read_text())["gallery"][0]
    edit(details, gallery=[case | {"image": path}])
    assert "no image" in read(run).text


def test_a_png_outside_the_run_is_not_embedded(run: Path) -> None:
    shutil.copy(next(run.glob("evaluation/d24fad/gallery/*.png")), run.parent / "secret.png")
    details = run / "evaluation" / "d24fad" / "details.json"
    edit(details, gallery=[json.loads(details.read_text())["gallery"][0] | {"image": "../../../secret.png"}])
    assert "no image" in read(run).text


def test_names_are_text_wherever_they_stand(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.update({"site": NASTY} if line.get("site") == "east" else {})
        line.update({"text": NASTY} if line["kind"] == "warning" else {})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    methods = summary()["methods"]
    methods["d24fad"]["baselines"][NASTY] = 0.5
    methods["d24fad"]["headline_name"] = f'AUROC" onload="{NASTY}'
    edit(run / "summary.json", name=NASTY, methods=methods, status="failed", error=NASTY)
    page = read(run)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.text.count(NASTY) > 12
    assert page.open == []


def test_a_dollar_in_a_name_is_no_formula(run: Path) -> None:
    methods = summary()["methods"]
    methods["d24fad"]["baselines"]["$\\frac{1$"] = 0.5
    edit(run / "summary.json", methods=methods)
    lines = (run / "metrics.jsonl").read_text().replace('"site": "east"', '"site": "$\\\\frac{1$"')
    (run / "metrics.jsonl").write_text(lines)
    assert read(run).text.count("$\\frac{1$") > 6


def test_signs_say_kept_or_dropped_with_their_reliability(page: Page) -> None:
    assert "kept bright ring 0.940" in page.text
    assert "dropped mass effect 0.560" in page.text
    assert f"dropped {NASTY} –" in page.text


def test_privacy_and_failures_are_told_per_site(page: Page) -> None:
    assert "δ = 1e-5, per image" in page.text
    assert summary()["sites"]["hill"]["claim"] in page.text
    assert "5 east rejected sdmad: the update holds values that are not finite" in page.text
    assert "8 hill budget spent the budget of ε 4 does not cover another round" in page.text
    assert page.text.count("no DP") == len(SITES) - 1


def test_spent_epsilon_is_never_understated(run: Path) -> None:
    """The summary says 3.4659 and the ledger, charged for a reply that never left, says more."""
    ledger(run / "sites" / "hill" / "ledger.jsonl", [3.47, 4.0301], secure=True)
    assert "hill 4.04 δ = 1e-5, per image 4 2 2.50" in read(run).text


def test_skipped_images_warnings_and_limits_are_listed(page: Page) -> None:
    assert "train/oedema/0031.png the file ends too early" in page.text
    assert "Round 3: d24fad: mean cosine" in page.text
    assert "hill: the noise is large" in page.text
    assert "Losses, sign-selection rule, protocol definitions and hyper-parameters are reconstructions" in page.text
    assert "SD-MAD: 1 category without positives or negatives left out of the macro means." in page.text
    assert "versions.flwr 1.41.0" in page.text


def test_a_sound_run_has_no_banner(page: Page) -> None:
    assert INSECURE not in page.text
    assert "banner" not in page.values("class")


@pytest.mark.parametrize("source", ["summary", "config", "ledger"])
def test_seeded_noise_is_said_in_red_whoever_knows_of_it(run: Path, source: str) -> None:
    if source == "summary":
        edit(run / "summary.json", insecure_noise=True)
    elif source == "config":
        config = run / "config.yaml"
        config.write_text(config.read_text().replace("insecure_noise_seed: null", "insecure_noise_seed: 7"))
        (run / "summary.json").unlink()
    else:
        ledger(run / "sites" / "hill" / "ledger.jsonl", [3.47], secure=False)
    page = read(run)
    assert INSECURE in page.text
    assert "banner" in page.values("class")


def test_a_failed_run_says_why(run: Path) -> None:
    edit(run / "summary.json", status="failed", error="Round 6 got 1 of 3 valid replies.", methods={}, sites={})
    text = read(run).text
    assert "This run failed. Round 6 got 1 of 3 valid replies." in text
    assert "0.844 image AUROC, K = 4, after round 8" in text


def test_a_run_that_goes_on_shows_what_it_has(run: Path) -> None:
    (run / "summary.json").unlink()
    shutil.rmtree(run / "evaluation")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    lines = [line for line in lines if json.loads(line).get("round", 0) <= 3]
    (run / "metrics.jsonl").write_text("".join(lines) + '{"kind": "site", "rou')
    page = read(run)
    assert "This run has not ended." in page.text
    assert "rounds 3 of 8" in page.text
    assert "AUROC one-vs-normal (P1), after round 3" in page.text
    assert "1 line of metrics.jsonl could not be read" in page.text
    assert "train/oedema/0031.png" in page.text
    assert "hill 3 0 1 323.2 kB 309 kB 2.1 s 3.47 δ = 1e-5, per image" in page.text
    assert len([tag for tag, _ in page.tags if tag == "section"]) == len(SECTIONS)


@pytest.mark.parametrize("kept", ["config.yaml", "metrics.jsonl", "summary.json"])
def test_any_one_file_makes_a_report(run: Path, tmp_path: Path, kept: str) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run / kept, bare)
    page = read(bare)
    assert [attrs.get("id") for tag, attrs in page.tags if tag == "section"] == list(SECTIONS)


def test_of_a_repeated_round_the_last_line_counts(run: Path) -> None:
    again = {"kind": "round", "round": 2, "seconds": 1.0, "bytes_up": 777_700, "bytes_down": 5, "replies": 4}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    text = read(run).text
    assert "2 4 1.0 s 5 B 777.7 kB" in text
    assert "2 4 2.1 s" not in text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no run directory"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("summary.json", "{", "not valid JSON"),
        ("summary.json", '{"status": "completed", "rounds": "many"}', "damaged at 'rounds'"),
        ("evaluation/sdmad/details.json", '{"roc": {"a": {"fpr": [0]}}}', "damaged at 'roc.a.tpr'"),
        ("config.yaml", "a: [", "not valid YAML"),
        ("config.yaml", "- a", "holds no settings"),
    ],
)
def test_a_damaged_file_is_named_and_the_old_report_stays(run: Path, file: str, content: str, said: str) -> None:
    before = write_report(run).read_bytes()
    (run / file).write_text(content)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        write_report(run)
    assert file in str(caught.value)
    assert (run / "report.html").read_bytes() == before


def test_figures_that_do_not_exist_are_dashes(run: Path) -> None:
    methods = summary()["methods"]
    methods["sdmad"]["image_auroc"]["p2"] = float("nan")
    methods["sdmad"]["arms"]["pooled"] = None
    edit(run / "summary.json", methods=methods)
    text = read(run).text
    assert "AUROC, one against other anomalies (P2) – 0.021" in text
    assert not re.search(r"\b(nan|None)\b", text)


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert not list(run.glob("*.part"))


def test_a_run_from_before_these_facts_were_kept_still_has_its_report(run: Path) -> None:
    """It has no intervals of arms, resamples, operating points, scores of categories, or bytes of sites."""
    for method in METHODS:
        shutil.rmtree(run / "evaluation" / method / "resamples")
        file = run / "evaluation" / method / "details.json"
        found = json.loads(file.read_text())
        old = {key: found[key] for key in ("roc", "scores", "gallery", "signs")}
        for scored in (*old["scores"], *old["gallery"]):
            del scored["category_scores"]
            scored.pop("evidence", None)
        for curve in old["roc"].values():
            del curve["task"], curve["label"]
        file.write_text(json.dumps(old))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["kind"] != "site_evaluation"]
    for line in kept:
        for key in ("interval", "headline_key", *(("bytes_up", "bytes_down") if line["kind"] == "site" else ())):
            line.pop(key, None)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    page = read(run)
    assert "0.844 image AUROC, K = 4" in page.text
    assert "higher than a site on its own, on average +0.064" in page.text
    assert page.html.count('<svg role="img"') == 13
    assert "ring: operating point" not in page.text
    assert [attrs.get("id") for tag, attrs in page.tags if tag == "section"] == list(SECTIONS)
