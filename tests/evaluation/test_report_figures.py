"""The report's figures, held against the files of the run and against figures worked out here."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from tests.evaluation.fake_details import NASTY, THRESHOLD
from tests.evaluation.fake_run import METHODS, SITES, edit, summary
from tests.evaluation.reading import Page, read


def details(run: Path, method: str) -> Any:
    return json.loads((run / "evaluation" / method / "details.json").read_text())


def resampled(run: Path, method: str, detector: str) -> np.ndarray:
    return np.array(json.loads((run / "evaluation" / method / "resamples" / f"{detector}.json").read_text()))


def test_every_figure_of_the_closing_comparison_is_in_the_text(page: Page) -> None:
    for method in summary()["methods"].values():
        figures = [*method["arms"].values(), *method["baselines"].values(), *method["interval"]]
        figures += [*method["image_auroc"].values(), *method["image_auroc_sd"].values()]
        figures += [method[key] for key in ("pixel_auroc", "pixel_aupro") if method[key] is not None]
        for figure in figures:
            assert f"{figure:.3f}" in page.text


def test_the_forest_has_every_detector_with_its_interval_and_the_paired_gain(page: Page, finished: Path) -> None:
    for i, (method, found) in enumerate(summary()["methods"].items()):
        rows = {row[0]: row[1:] for row in page.sheet(f"forest-{i}")[1:]}
        assert len(rows) == len(found["arms"]) + len(found["baselines"]) + len(SITES)
        federated = resampled(finished, method, "federated")
        for title, detector, value in (
            ("All images in one place", "pooled", found["arms"]["pooled"]),
            ("Before training", "untrained", found["arms"]["untrained"]),
            ("kNN on raw pixels", "baseline-raw_pixels", found["baselines"]["raw_pixels"]),
            ("hill, on its own", "local-hill", summary()["sites"]["hill"]["local"][method]),
        ):
            _, figure, low, high, gain, *paired = rows[title]
            assert float(figure) == value
            assert [float(low), float(high)] == pytest.approx([value - 0.05, value + 0.05])
            assert float(gain) == pytest.approx(found["headline"] - value)
            expected = np.percentile(federated - resampled(finished, method, detector), [2.5, 97.5])
            assert [float(x) for x in paired] == pytest.approx(expected)


def test_the_mean_of_the_sites_has_the_interval_of_the_mean(page: Page, finished: Path) -> None:
    rows = {row[0]: row[1:] for row in page.sheet("forest-0")[1:]}
    mean = np.mean([resampled(finished, "d24fad", f"local-{name}") for name in SITES], axis=0)
    assert [float(x) for x in rows["Each site on its own, mean"][2:4]] == pytest.approx(
        np.percentile(mean, [2.5, 97.5])
    )


def test_the_verdicts_follow_from_the_paired_intervals_whoever_wins(page: Page) -> None:
    first, second = re.findall(r"50 would be guessing\.(.*?)(?=SD-MAD 0\.882|D²4FAD: image)", page.text)
    assert re.findall(r"better|worse|not told apart", first) == ["better", "not told apart", "better", "worse"]
    assert "worse than the best simple baseline, kNN on frozen patch features −0.031" in first
    assert re.findall(r"better|worse|not told apart", second) == ["better", "not told apart", "better", "better"]


@pytest.mark.parametrize(("shift", "word"), [(0.2, "worse than"), (0.0, "not told apart from"), (-0.2, "better than")])
def test_a_verdict_needs_an_interval_beside_zero(run: Path, shift: float, word: str) -> None:
    federated = resampled(run, "d24fad", "federated")
    noise = np.random.default_rng(0).normal(0, 0.01, federated.size)
    (run / "evaluation" / "d24fad" / "resamples" / "pooled.json").write_text(
        json.dumps((federated + shift + noise).tolist())
    )
    assert f"{word} training on all images in one place" in read(run).text


def test_without_resamples_a_difference_has_no_verdict(run: Path) -> None:
    shutil.rmtree(run / "evaluation" / "d24fad" / "resamples")
    (run / "evaluation" / "sdmad" / "resamples" / "pooled.json").write_text("[0.1, ")
    text = read(run).text
    assert "lower than training on all images in one place −0.017" in text
    assert "higher than training on all images in one place +0.003" in text
    assert "better than the same model before training" in text


def test_equal_figures_are_called_equal(run: Path) -> None:
    shutil.rmtree(run / "evaluation" / "d24fad" / "resamples")
    methods = summary()["methods"]
    methods["d24fad"]["arms"]["pooled"] = methods["d24fad"]["headline"]
    edit(run / "summary.json", methods=methods)
    assert "equal to training on all images in one place" in read(run).text


def test_a_picture_in_words_is_given_of_an_auroc_only(run: Path) -> None:
    assert "In 84 of 100 pairs, an abnormal image" in read(run).text
    methods = summary()["methods"]
    methods["d24fad"]["headline_name"] = "F1"
    edit(run / "summary.json", methods=methods)
    text = read(run).text
    assert "In 84 of 100" not in text
    assert "In 88 of 100 pairs, averaged over categories" in text


@pytest.mark.parametrize("method", METHODS)
def test_the_operating_point_is_the_confusion_of_the_scores(page: Page, finished: Path, method: str) -> None:
    scores = details(finished, method)["scores"]
    labels = [x["label"] for x in scores]
    called = [int(x["score"] > THRESHOLD[method]) for x in scores]
    (tn, fp), (fn, tp) = confusion_matrix(labels, called)
    header, *rows = page.sheet("operating")
    row = dict(zip(header, rows[METHODS.index(method)], strict=True))
    assert float(row["threshold"]) == THRESHOLD[method]
    counted = [int(row[key]) for key in ("true positive", "false negative", "false positive", "true negative")]
    assert counted == [tp, fn, fp, tn]
    shares = {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "PPV": tp / (tp + fp),
        "NPV": tn / (tn + fn),
    }
    for key, value in shares.items():
        assert float(row[key]) == pytest.approx(value)


def test_shares_have_wilson_intervals(page: Page, finished: Path) -> None:
    scores = details(finished, "d24fad")["scores"]
    called = [x["score"] > THRESHOLD["d24fad"] for x in scores if x["label"]]
    n, p, z = len(called), float(np.mean(called)), 1.959964
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    assert f"{100 * p:.1f} % {100 * low:.1f} to {100 * high:.1f} %" in page.text


def test_a_share_of_nothing_is_a_dash(run: Path) -> None:
    found = details(run, "d24fad")
    found["operating"]["brain_mri"]["threshold"] = 1e9
    edit(run / "evaluation" / "d24fad" / "details.json", operating=found["operating"])
    header, first, *_ = read(run).sheet("operating")
    assert dict(zip(header, first, strict=True))["PPV"] == "–"


def test_the_confusion_between_categories_counts_every_image_that_shows_one(page: Page, finished: Path) -> None:
    expected: dict[tuple[str, str], int] = {}
    for x in details(finished, "sdmad")["scores"]:
        loudest = max(x["category_scores"], key=x["category_scores"].get)
        called = loudest if x["score"] > THRESHOLD["sdmad"] else "normal"
        for shown in x["categories"] or ["normal"]:
            expected[shown, called] = expected.get((shown, called), 0) + 1
    header, *rows = page.sheet("matrix-0")
    assert header[1:] == [row[0] for row in rows] == ["normal", "oedema", "ring_mass"]
    found = {(row[0], name): int(count) for row in rows for name, count in zip(header[1:], row[1:], strict=True)}
    assert {pair: count for pair, count in found.items() if count} == expected


def test_why_a_category_is_told_sign_by_sign(page: Page, finished: Path) -> None:
    item = details(finished, "sdmad")["gallery"][0]
    why = item["evidence"][0]
    name, value = why["category"].replace("_", " "), f"{why['score']:.2f}"
    spoken = [f"{sign} {value:+.2f}".replace("-", "−") for sign, value in why["signs"]]
    chance = f"{100 * why['probability']:.1f}"
    assert f"Why {name}? {value}, {chance} % likely" in page.text
    assert " ".join([*spoken, "likeness to the supports (added) +0.30"]) in page.text


def test_each_category_at_its_own_threshold_is_counted(page: Page, finished: Path) -> None:
    found = details(finished, "sdmad")
    header, *rows = page.sheet("calling")
    assert [row[2] for row in rows] == list(found["thresholds"]["brain_mri"]) == ["oedema", "ring_mass"]
    for row in rows:
        name, threshold = row[2], found["thresholds"]["brain_mri"][row[2]]
        calls = [(name in x["categories"], x["category_scores"][name] > threshold) for x in found["scores"]]
        shown, others = ([call for there, call in calls if there is want] for want in (True, False))
        assert float(row[3]) == threshold
        assert [int(row[4]), float(row[5])] == [len(shown), pytest.approx(sum(shown) / len(shown))]
        assert float(row[6]) == pytest.approx(1 - sum(others) / len(others))
    assert header[3:] == ["threshold", "images that show it", "called, of those", "not called, of others"]


def test_curves_can_be_downloaded_and_are_those_of_the_files(page: Page, finished: Path) -> None:
    found = details(finished, "d24fad")
    header, *rows = page.sheet("roc-0-0")
    assert header == ["curve", "false positive rate", "true positive rate"]
    assert [float(x) for name, x, _ in rows if name == "4"] == found["roc"]["4"]["fpr"]
    _, *rows = page.sheet("precision-recall-0-0")
    assert [float(y) for name, _, y in rows if name == "8"] == found["precision_recall"]["8"]["precision"]
    _, *rows = page.sheet("scores-0-0")
    assert [float(row[-1]) for row in rows] == [x["score"] for x in found["scores"]]


def test_every_drawing_and_table_has_its_numbers_as_csv(page: Page) -> None:
    figures = sum("plot" in value.split() or "table" in value.split() for value in page.values("class"))
    names = page.values("download")
    assert len(names) == len(set(names)) == figures + 1  # and the signs, which are lists
    assert all(len(page.sheet(name.removesuffix(".csv"))) > 1 for name in names)


def test_a_csv_runs_nothing_in_a_spreadsheet(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().replace('"site": "east"', '"site": "=HYPERLINK(1)"')
    (run / "metrics.jsonl").write_text(lines)
    names = {row[0] for row in read(run).sheet("sites")[1:]}
    assert "'=HYPERLINK(1)" in names
    assert "=HYPERLINK(1)" not in names


def test_numbers_in_charts_are_text_and_colours_follow_the_page(page: Page) -> None:
    assert page.html.count('<svg role="img"') == 15
    assert not re.search(r"#0[1-5]0[0-9a-f]{3}\b", page.html)
    labels = {text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", page.html)}
    assert {"0.8", "guessing", "round", "400 kB", "north"} <= labels
    assert "var(--series-0)" in page.html


def test_sites_tell_bytes_seconds_and_their_own_figures(page: Page) -> None:
    header, *rows = page.sheet("sites")
    north = dict(zip(header, next(row for row in rows if row[0] == "north"), strict=True))
    assert (north["sent"], north["received"]) == (str(8 * 103_000), str(8 * 107_750))
    assert float(north["time"]) == pytest.approx(8 * 0.4)
    assert float(north["D²4FAD, on its own images"]) == pytest.approx(0.85)
    assert "0.850 0.700 to 0.900, 40 images" in page.text


def test_the_ledger_is_drawn_with_the_budget(page: Page) -> None:
    rows = [(row[0], int(row[1]), float(row[2])) for row in page.sheet("privacy")[1:]]
    assert [site for site, _, _ in rows] == ["hill"] * 9
    assert [value for _, _, value in rows] == pytest.approx([1.31 * min(n, 7) ** 0.5 for n in range(9)])
    assert "hill 3.47 δ = 1e-5, per image 4 7 2.50" in page.text
    assert "dashed: the site's budget" in page.text


def test_suspended_and_predict_only_sites_are_said(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.update({"role": "predict-only"} if (line["kind"], line.get("site")) == ("site", "south") else {})
    lines.append({"kind": "suspended", "round": 6, "site": "east", "reason": f"3 bad updates {NASTY}"})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = read(run)
    assert "6 east suspended 3 bad updates" in page.text
    assert "east suspended 7 1" in page.text
    assert "south predict-only 8 0" in page.text
    assert "script" not in {tag for tag, _ in page.tags}


def test_many_sites_are_one_row_of_the_forest(run: Path) -> None:
    sites = summary()["sites"]
    sites |= {f"s{i}": sites["north"] for i in range(4)}
    edit(run / "summary.json", sites=sites)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines += [
        {"kind": "arm", "arm": "local", "site": f"s{i}", "method": m, "headline": 0.7}
        for i in range(4)
        for m in METHODS
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    titles = [row[0] for row in read(run).sheet("forest-0")]
    assert "Each site on its own, mean" in titles
    assert not [title for title in titles if title.endswith(", on its own")]


def test_what_was_run_is_told_with_its_counts(page: Page) -> None:
    assert "4 sites trained D²4FAD and SD-MAD together for 8 rounds" in page.text
    assert "the figures are of 96 test images of the server's own" in page.text
    assert ["hill", "oct, fundus", "40", "32"] in page.sheet("holdings")
    assert ["SD-MAD", "brain_mri", "96", "48", "48"] in page.sheet("tested")
