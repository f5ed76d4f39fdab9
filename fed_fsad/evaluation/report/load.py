"""Reads a run directory, finished or still growing, into one typed value."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from fed_fsad.errors import DataError
from fed_fsad.evaluation.report.lines import (
    Account,
    ArmLine,
    BaselineLine,
    EvaluationLine,
    HospitalLine,
    LedgerLine,
    Line,
    Record,
    RoundLine,
    SiteEvaluationLine,
    SiteLine,
    Skipped,
    SkippedLine,
    SuspendedLine,
    WarningLine,
    key,
)
from fed_fsad.evaluation.report.records import Details, Environment, Summary
from fed_fsad.evaluation.report.shares import Share, read_shares
from fed_fsad.quick_yaml import Loader

T = TypeVar("T", bound=Record)
MARKS = ("config.yaml", "metrics.jsonl", "summary.json")
_LINE: TypeAdapter[Line] = TypeAdapter(Line)
_RESAMPLES: TypeAdapter[tuple[float, ...]] = TypeAdapter(tuple[float, ...])
_KINDS = {get_args(line.model_fields["kind"].annotation)[0] for line in get_args(get_args(Line)[0])}


@dataclass(frozen=True)
class Run:
    """Everything a report says, in the order it was written. `summary` is None while the run is going on.

    resamples: by method and detector, the headline on resampled test images. unreadable: lines of metrics.jsonl that
    were torn, as the last one is when a run is killed while it writes. shares: who was dealt how many images of what,
    empty without a partition. hospital_level: the server's own account, round by round, where it keeps one.
    """

    path: Path
    config: dict[str, Any]
    config_text: str
    environment: Environment
    summary: Summary | None
    rounds: tuple[RoundLine, ...]
    site_rounds: tuple[SiteLine, ...]
    suspensions: tuple[SuspendedLine, ...]
    site_evaluations: tuple[SiteEvaluationLine, ...]
    evaluations: tuple[EvaluationLine, ...]
    arms: tuple[ArmLine, ...]
    baselines: tuple[BaselineLine, ...]
    notices: tuple[WarningLine, ...]
    skipped: tuple[Skipped, ...]
    accounts: dict[str, Account]
    details: dict[str, Details]
    resamples: dict[str, dict[str, tuple[float, ...]]]
    unreadable: int
    shares: tuple[Share, ...] = ()
    hospital_level: tuple[HospitalLine, ...] = ()

    @property
    def name(self) -> str:
        """The run's name: the summary's, else the config's, else the folder's."""
        return (self.summary and self.summary.name) or str(self.config.get("name") or self.path.resolve().name)

    @property
    def status(self) -> str:
        """completed, failed or running."""
        return self.summary.status if self.summary else "running"

    @property
    def insecure_noise(self) -> bool:
        """Whether privacy noise was seeded, by the summary, the config or any ledger: one of them is enough."""
        privacy = self.config.get("privacy") or {}
        said = bool(self.summary and self.summary.insecure_noise) or privacy.get("insecure_noise_seed") is not None
        return said or any(not account.secure for account in self.accounts.values())

    @property
    def planned_rounds(self) -> int | None:
        """Rounds the config asks for."""
        planned = (self.config.get("federation") or {}).get("rounds")
        return planned if isinstance(planned, int) else None

    @property
    def hospitals(self) -> tuple[dict[str, Any], ...]:
        """The hospitals as the config describes them."""
        listed = self.config.get("hospitals")
        return tuple(x for x in listed if isinstance(x, dict) and "name" in x) if isinstance(listed, list) else ()

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site's name, sorted: configured, heard of, or summed up."""
        configured = {str(hospital["name"]) for hospital in self.hospitals}
        return tuple(sorted(configured | {line.site for line in self.site_rounds} | set(self._summed_sites)))

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method's name, sorted."""
        summed = set(self.summary.methods) if self.summary else set()
        return tuple(sorted(summed | set(self.details) | {line.method for line in self.evaluations}))

    @property
    def _summed_sites(self) -> tuple[str, ...]:
        return tuple(self.summary.sites) if self.summary else ()


def load_run(path: Path) -> Run:
    """Read a run directory. Raises DataError when it is none, or when a finished file of it is damaged."""
    if not any((path / mark).is_file() for mark in MARKS):
        raise DataError(
            f"{path} is no run directory, it holds none of {', '.join(MARKS)}; give the folder that `--out` named"
        )
    lines, unreadable = _lines(path / "metrics.jsonl")
    config, text = _config(path / "config.yaml")
    found = sorted((path / "evaluation").glob("*/details.json"))
    return Run(
        path=path,
        config=config,
        config_text=text,
        environment=_read(path / "environment.json", Environment) or Environment(),
        summary=_read(path / "summary.json", Summary),
        rounds=tuple(line for line in lines if isinstance(line, RoundLine)),
        site_rounds=tuple(line for line in lines if isinstance(line, SiteLine)),
        suspensions=tuple(line for line in lines if isinstance(line, SuspendedLine)),
        site_evaluations=tuple(line for line in lines if isinstance(line, SiteEvaluationLine)),
        evaluations=tuple(line for line in lines if isinstance(line, EvaluationLine)),
        arms=tuple(line for line in lines if isinstance(line, ArmLine)),
        baselines=tuple(line for line in lines if isinstance(line, BaselineLine)),
        notices=tuple(line for line in lines if isinstance(line, WarningLine)),
        details={file.parent.name: details for file in found if (details := _read(file, Details))},
        resamples=_resamples(path / "evaluation"),
        skipped=tuple(image for line in lines if isinstance(line, SkippedLine) for image in line.images),
        accounts={file.parent.name: _account(file) for file in sorted((path / "sites").glob("*/ledger.jsonl"))},
        unreadable=unreadable,
        shares=read_shares(path / "partition.csv"),
        hospital_level=tuple(line for line in lines if isinstance(line, HospitalLine)),
    )


def _read(path: Path, kind: type[T]) -> T | None:
    """One JSON file, or None without it; NaN and infinities, which JSON does not know, become None."""
    if not path.is_file():
        return None
    try:
        return kind.model_validate(json.loads(path.read_text("utf-8"), parse_constant=lambda _: None))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path} is damaged at {where!r} ({first['msg']}); resume or repeat the run") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); resume or repeat the run") from error


def _resamples(folder: Path) -> dict[str, dict[str, tuple[float, ...]]]:
    """evaluation/METHOD/resamples/DETECTOR.json; one that is damaged costs its interval and nothing else."""
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for file in sorted(folder.glob("*/resamples/*.json")):
        try:
            found.setdefault(file.parent.parent.name, {})[file.stem] = _RESAMPLES.validate_json(file.read_bytes())
        except ValidationError:
            continue
    return found


def _config(path: Path) -> tuple[dict[str, Any], str]:
    if not path.is_file():
        return {}, ""
    try:
        text = path.read_text("utf-8")
        value = yaml.load(text, Loader)
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not valid YAML; copy the config of the run there again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds no settings; copy the config of the run there again")
    return value, text


def _lines(path: Path) -> tuple[list[Line], int]:
    """The lines of metrics.jsonl by round; of a (round, kind, name) that a resumed run wrote twice, the last."""
    latest: dict[tuple[int, str, str, str], Line] = {}
    unreadable = 0
    for raw in _objects(path):
        if raw is not None and raw.get("kind") not in _KINDS:
            continue
        try:
            line = _LINE.validate_python(raw)
        except ValidationError:
            unreadable += 1
            continue
        latest[key(line)] = line
    return [latest[about] for about in sorted(latest)], unreadable


def _objects(path: Path) -> list[dict[str, Any] | None]:
    """The objects of a JSONL file; None for a line that is no object."""
    lines = path.read_text("utf-8", errors="replace").split("\n") if path.is_file() else []
    return [_object(line) for line in lines if line.strip()]


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _account(path: Path) -> Account:
    """The state of a ledger after its last readable line; a line being written just now is not yet a charge."""
    found = [LedgerLine.model_validate(raw) for raw in _objects(path) if raw is not None]
    return Account(
        charges=tuple(line for line in found if line.epsilon_after is not None),
        delta=next((line.delta for line in found if line.delta is not None), None),
        unit=next((line.unit for line in found if line.unit is not None), None),
    )
