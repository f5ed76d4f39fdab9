"""What the report says of guarantees: every site's own, the hospital level beside them, and no sum of the two."""

import json
from pathlib import Path

from tests.evaluation.fake_run import edit, summary
from tests.evaluation.reading import read


def hospital_line(round_: int, epsilon: float) -> str:
    line = {
        "kind": "hospital_privacy", "round": round_, "epsilon": epsilon, "budget": 12, "delta": 1e-3, "sigma": 0.71,
        "clip_norm": 0.5, "cohort": 4, "claim": f"Hospital-level until round {round_}.",
    }  # fmt: skip
    return json.dumps(line) + "\n"


def test_a_run_without_a_hospital_level_says_nothing_of_one(run: Path) -> None:
    assert "The hospital level" not in read(run).text


def test_the_hospital_level_stands_beside_the_sites_rounded_up(run: Path) -> None:
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(hospital_line(1, 4.8101) + hospital_line(2, 7.5301) + hospital_line(2, 7.5301))
    page = read(run)
    assert "1 4.82 δ = 0.001, per hospital 12 0.71 0.5 4 2 7.54" in page.text
    assert "Hospital-level until round 2." in page.text
    assert "Hospital-level until round 1." not in page.text
    assert "stand side by side: their ε are never added" in page.text
    assert len(page.sheet("hospital-level")) == 3, "a round that a resumed run wrote twice counts once"


def test_every_site_has_its_guarantee_also_without_privacy(run: Path) -> None:
    sites = summary()["sites"]
    told = {name: site | {"guarantee": f"What {name} promises."} for name, site in sites.items()}
    edit(run / "summary.json", sites=told)
    text = read(run).text
    assert all(f"What {name} promises." in text for name in sites)
