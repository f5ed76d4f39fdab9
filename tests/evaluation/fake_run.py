"""A run directory as four hospitals would leave it: invented figures, drawn images, real file formats."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.evaluation.fake_details import NASTY, write_details, write_resamples

__all__ = ["NASTY"]

SITES = ("north", "east", "south", "hill")
METHODS = ("d24fad", "sdmad")
FIGURES = {"d24fad": ("2", "4", "8"), "sdmad": ("p1", "p2", "p3", "binary")}
ROUNDS = 8
SKIPPED = [{"name": "train/oedema/0031.png", "reason": "the file ends too early"}]


def fake_run(path: Path, seed: int = 0) -> Path:
    """Write a completed run below `path` and return it."""
    random = np.random.default_rng(seed)
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "name": "demo",
        "seed": 7,
        "engine": "inprocess",
        "methods": {"d24fad": {"local_steps": 8, "lr": 0.001}, "sdmad": {"local_steps": 8, "lr": 0.001}},
        "data": {"kind": "phantoms", "pose_jitter": 1.0},
        "hospitals": [
            {"name": name, "holds": {"kind": "phantoms", "organs": ["oct", "fundus"], "normal": 40, "abnormal": 32}}
            | ({"policy": {"privacy": "example", "epsilon": 4}} if name == "hill" else {})
            for name in SITES
        ],
        "federation": {"rounds": ROUNDS},
        "privacy": {"insecure_noise_seed": None},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    versions = {"fed_fsad": "0.1.0", "flwr": "1.41.0", "torch": "2.15.0", "opacus": "1.6.0", "python": "3.11.9"}
    environment = {"run_id": "8f2c1ab4", "started": "2026-05-04 09:12 UTC", "threads": 1, "versions": versions}
    _json(path / "environment.json", environment)
    lines: list[dict[str, Any]] = [{"kind": "skipped", "images": SKIPPED}, *compared()]
    lines += [line for method in METHODS for line in [evaluation(method, 0, summary()["methods"][method])]]
    lines += [line for number in range(1, ROUNDS + 1) for line in round_lines(number, random)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _json(path / "summary.json", summary())
    ledger(path / "sites" / "hill" / "ledger.jsonl", [1.31 * n**0.5 for n in range(1, ROUNDS)], secure=True)
    for method, found in summary()["methods"].items():
        write_details(path / "evaluation" / method, method, random)
        detectors = {**found["arms"], **{f"baseline-{key}": value for key, value in found["baselines"].items()}}
        detectors |= {f"local-{name}": site["local"][method] for name, site in summary()["sites"].items()}
        write_resamples(path / "evaluation" / method, detectors, random)
    return path


def compared() -> list[dict[str, Any]]:
    """A line per arm and baseline, each with its interval; the mean of the sites has none of its own."""
    lines: list[dict[str, Any]] = []
    for method, found in summary()["methods"].items():

        def figures(value: float, method: str = method) -> dict[str, Any]:
            return {"method": method, "headline": value, "interval": [value - 0.05, value + 0.05]}

        lines.append({"kind": "arm", "arm": "pooled", "site": None, **figures(found["arms"]["pooled"])})
        for name, site in summary()["sites"].items():
            lines.append({"kind": "arm", "arm": "local", "site": name, **figures(site["local"][method])})
        lines += [{"kind": "baseline", "name": k, **figures(v)} for k, v in found["baselines"].items()]
    return lines


def evaluation(method: str, number: int, found: dict[str, Any]) -> dict[str, Any]:
    """The figures of a round, on the way from the untrained to the closing ones."""
    share = 1 - float(np.exp(-number / 2.6)) if number < ROUNDS else 1.0
    start = found["arms"]["untrained"]
    auroc = {key: start + share * (value - start) for key, value in found["image_auroc"].items()}
    headline = start + share * (found["headline"] - start)
    return {
        "kind": "evaluation", "round": number, "method": method, "image_auroc": auroc, "headline": headline,
        "headline_name": found["headline_name"], "headline_key": "4" if method == "d24fad" else "p1",
        "interval": [headline - 0.05, headline + 0.05],
        "pixel_auroc": None if found["pixel_auroc"] is None else found["pixel_auroc"] - 0.2 * (1 - share),
    }  # fmt: skip


def round_lines(number: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """metrics.jsonl of one round; hill trains privately and spends its budget, east falls out of round 5."""
    late = number == 5
    rejected = {"east": "sdmad: the update holds values that are not finite"} if late else {}
    lines: list[dict[str, Any]] = []
    for i, site in enumerate(SITES):
        private, spent = site == "hill", site == "hill" and number == ROUNDS
        loss = 0.3 + 0.9 * np.exp(-number / 3) + 0.06 * i + random.normal(0, 0.012)
        trained = {m: {"loss": None if private else loss * (1, 0.6)[j], "examples": 1 if private else 96 - 12 * i}
                   for j, m in enumerate(METHODS)}  # fmt: skip
        status = "budget_spent" if spent else "rejected" if site in rejected else "ok"
        reason = {"budget_spent": "the budget of ε 4 does not cover another round"}.get(status, rejected.get(site, ""))
        epsilon = 1.31 * float(np.sqrt(min(number, ROUNDS - 1))) if private else None
        lines.append({"kind": "site", "round": number, "site": site, "status": status, "reason": reason,
                      "methods": {} if spent else trained, "epsilon": epsilon, "delta": 1e-5 if private else None,
                      "seconds": 0.4 + 0.1 * i, "bytes_up": 103_000, "bytes_down": 107_750})  # fmt: skip
    lines.append({"kind": "round", "round": number, "seconds": 1.9 + 0.1 * number, "bytes_up": 412_000 - 9_000 * late,
                  "bytes_down": 431_000, "replies": 3 if late else 4, "rejected": rejected,
                  "attempt": 1 + late})  # fmt: skip
    lines += [evaluation(method, number, found) for method, found in summary()["methods"].items()]
    own = {"images": 40, "headline": 0.77 + 0.01 * number, "interval": [0.7, 0.9]}
    lines.append({"kind": "site_evaluation", "round": number, "site": "north", "method": "d24fad", **own})
    if number == 3:
        text = "d24fad: mean cosine of student features is 0.983, above 0.98: the student may be collapsing"
        lines.append({"kind": "warning", "round": 3, "text": text})
    return lines


def summary() -> dict[str, Any]:
    """summary.json: on one method the federation wins, on the other a simple baseline does."""
    methods = {
        "d24fad": {
            "image_auroc": {"2": 0.8112, "4": 0.8437, "8": 0.8671},
            "image_auroc_sd": {"2": 0.0213, "4": 0.0164, "8": 0.0091},
            "interval": [0.7925, 0.8888], "headline_name": "image AUROC, K = 4", "headline": 0.8437,
            "pixel_auroc": 0.9011, "pixel_aupro": 0.7123,
            "arms": {"federated": 0.8437, "pooled": 0.8612, "local": 0.7794, "untrained": 0.6843},
            "baselines": {"knn": 0.8745, "position_nn": 0.8021, "knn_pooled": 0.7456, "raw_pixels": 0.6127},
            "left_out": 0, "notes": [],
        },
        "sdmad": {
            "image_auroc": {"p1": 0.8821, "p2": 0.8034, "p3": 0.8462, "binary": 0.9013},
            "image_auroc_sd": {"p1": 0.0102, "p2": 0.0214, "p3": 0.0151, "binary": 0.0077},
            "interval": [0.8514, 0.9107], "headline_name": "AUROC one-vs-normal (P1)", "headline": 0.8821,
            "pixel_auroc": None, "pixel_aupro": None,
            "arms": {"federated": 0.8821, "pooled": 0.8795, "local": 0.8143, "untrained": 0.7016},
            "baselines": {"knn_pooled": 0.8366, "raw_pixels": 0.5918, "zero_shot": 0.7305, "linear_probe": 0.8209},
            "left_out": 1,
            "notes": ["the category that no hospital holds is recognised from its signs alone"],
        },
    }  # fmt: skip
    claim = (
        "Whether any one image was used for training changes what left this hospital by at most ε = 3.47 at δ = 1e-5 "
        "(add or remove one image; full batch, 7 releases; closed-form Gaussian composition)."
    )
    sites: dict[str, dict[str, Any]] = {
        name: {
            "rounds": ROUNDS, "failures": 0, "examples": 96 - 12 * i, "epsilon": None, "delta": None, "unit": None,
            "claim": None, "local": {"d24fad": 0.80 - 0.012 * i, "sdmad": 0.83 - 0.011 * i},
        }
        for i, name in enumerate(SITES)
    }  # fmt: skip
    sites["east"] |= {"rounds": ROUNDS - 1, "failures": 1}
    sites["hill"] |= {
        "rounds": ROUNDS - 1,
        "failures": 1,
        "epsilon": 3.4659,
        "delta": 1e-5,
        "unit": "image",
        "claim": claim,
    }
    return {
        "status": "completed", "error": None, "name": "demo", "seed": 7, "rounds": ROUNDS,
        "seconds": {"total": 148.2, "per_round": 2.35}, "bytes": {"up": 3_287_000, "down": 3_448_000},
        "insecure_noise": False,
        "skipped_images": SKIPPED,
        "warnings": ["hill: the noise is large for 60 records (ρ = 1.4); expect little gain from its updates"],
        "methods": methods, "sites": sites,
    }  # fmt: skip


def ledger(path: Path, charges: list[float], secure: bool) -> None:
    """A site's ledger: its header, then what each charge brought ε to."""
    lines: list[dict[str, Any]] = [{"kind": "header", "version": 1, "unit": "image", "delta": 1e-5}]
    lines += [
        {
            "kind": "charge", "request": {"run": "8f2c1ab4", "round": i, "method": "sdmad", "key": "k"},
            "releases": 1, "sigma": 2.5, "epsilon_after": value, "secure": secure,
        }
        for i, value in enumerate(charges, start=1)
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def edit(path: Path, **changes: object) -> None:
    """Change top-level keys of a JSON file."""
    _json(path, json.loads(path.read_text()) | changes)


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1))
