"""The documents say what the code does: their example runs; names, paths, commands and settings in them exist."""

import ast
import doctest
import importlib
import re
import shlex
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fed_fsad import methods
from fed_fsad.cli import app
from fed_fsad.config import Config, parse_config
from fed_fsad.config.schema import Federation, PrivacySettings, Strategy
from fed_fsad.config.secure import SecureSettings
from fed_fsad.data.plan import PartitionSettings
from fed_fsad.data.settings import CollectionData, FolderData, Reading, Tiles
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.machine import CacheSettings, MachineSettings
from fed_fsad.methods import d24fad, sdmad
from fed_fsad.methods.d24fad.settings import TeacherSettings
from fed_fsad.methods.local import LocalTraining
from fed_fsad.methods.method import TrainingSettings
from fed_fsad.privacy.policy import Policy
from fed_fsad.privacy.terms import ExampleTerms, HospitalTerms
from fed_fsad.progress import PlainProgress
from server.checkpoint import load_checkpoint
from simulations.simulate import simulate
from simulations.study.settings import StudySettings

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
ROOMS = ("fed_fsad", "server", "clients", "simulations", "configs", "pretraining", "tests", "docs", "benchmarks")
TABLES: list[tuple[str, str, type[BaseModel], type[BaseModel] | None]] = [
    ("methods.md", "", TrainingSettings, None),
    ("methods.md", "", d24fad.Settings, TrainingSettings),
    ("methods.md", "teacher.", TeacherSettings, None),
    ("methods.md", "", sdmad.Settings, TrainingSettings),
    ("methods.md", "", EvaluationSettings, None),
    ("privacy.md", "", Policy, None),
    ("privacy.md", "privacy.", PrivacySettings, None),
    ("privacy.md", "privacy.example.", ExampleTerms, None),
    ("privacy.md", "privacy.hospital.", HospitalTerms, None),
    ("secure-aggregation.md", "privacy.secure.", SecureSettings, None),
    ("own-data.md", "data.", FolderData, None),
    ("own-data.md", "data.", CollectionData, None),
    ("running.md", "", Federation, None),
    ("running.md", "strategy.", Strategy, None),
    ("studies.md", "partition.", PartitionSettings, None),
    ("studies.md", "federation.local.", LocalTraining, None),
    ("formats.md", "reading.", Reading, None),
    ("speed.md", "machine.", MachineSettings, None),
    ("speed.md", "machine.cache.", CacheSettings, None),
    ("formats.md", "reading.tiles.", Tiles, None),
    ("studies.md", "", StudySettings, None),
]
"""(page, prefix of its keys, settings, base whose keys stand in a table of their own)."""

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def fences(text: str, language: str) -> list[str]:
    """The code blocks of one language ("" = none is named)."""
    every = re.findall(r"^```(\S*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for named, block in every if named == language]


def quoted(text: str) -> list[str]:
    """What stands in backticks in running text."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def commands(text: str, program: str) -> Iterator[list[str]]:
    """Calls of `program` in shell blocks and in backticks, as lists of arguments."""
    shell = "\n".join(block for language in ("", "sh", "bash", "console") for block in fences(text, language))
    for line in [*shell.replace("\\\n", " ").splitlines(), *quoted(text)]:
        if re.match(rf"(\$ )?(\S*/)?{program}( |$)", line):
            yield shlex.split(line.removeprefix("$ "), comments=True)[1:]


# ---- the example of add-a-method.md, run

FEDERATION = """
name: added
data: {kind: phantoms, test_normal: 6, test_abnormal: 8, pool: 4}
hospitals:
  - {name: north, holds: {organs: [oct], normal: 8, abnormal: 2}}
  - {name: south, holds: {organs: [liver_ct], normal: 8, abnormal: 2, style: 1}}
  - name: west
    holds: {organs: [fundus], normal: 24, abnormal: 2}
federation: {rounds: 1}
evaluation: {shots: [2], draws: 1, unseen_task: brain_mri}
arms: []
"""


def test_the_method_of_the_page_runs_through_a_federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (REPOSITORY / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    (code,) = fences(guide, "python")
    chosen, policy = fences(guide, "yaml")
    package = tmp_path / "packages" / "subspace"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(package.parent)])
    importlib.invalidate_caches()
    try:
        text = FEDERATION.replace("federation:", f"    {policy}{chosen}federation:")
        config = parse_config(text, "added.yaml")
        run = simulate(config, tmp_path / "run", PlainProgress())
        start = methods.build("subspace", config.training["subspace"], config.seed).snapshot()
    finally:
        sys.modules.pop("fed_fsad.methods.subspace", None)
        vars(methods).pop("subspace", None)
    found = run.summary()["methods"]["subspace"]
    assert 0 <= found["image_auroc"]["2"] <= 1
    assert 0 <= found["pixel_auroc"] <= 1
    assert set(found["arms"]) == {"federated", "untrained"}
    assert set(found["baselines"]) == {"raw_pixels", "knn_pooled"}
    sites = run.summary()["sites"]
    assert [sites[name]["examples"] for name in ("north", "south", "west")] == [8, 8, None]
    assert 0 < sites["west"]["epsilon"] <= 8.0001
    checkpoint = load_checkpoint(run.checkpoints, run.run_id, {"subspace": start})
    assert checkpoint is not None
    assert not torch.equal(checkpoint.tensors["subspace"]["basis/directions"], start["basis/directions"])
    assert "subspace" in (run.path / "report.html").read_text(encoding="utf-8")


# ---- settings


def _choices(kind: Any) -> list[str]:
    """The values a Literal allows, however deep it lies in the annotation."""
    if typing.get_origin(kind) is Literal:
        return [str(value) for value in typing.get_args(kind)]
    return [value for part in typing.get_args(kind) for value in _choices(part)]


def _shown(value: Any) -> str:
    if value is PydanticUndefined:
        return "must be stated"
    if value is None:
        return "–"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def settings_table(prefix: str, kind: type[BaseModel], base: type[BaseModel] | None) -> str:
    """The settings of a model as a Markdown table; nested groups have a table of their own."""
    known = base.model_fields if base else {}
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, entry in kind.model_fields.items():
        if name in known:
            continue
        nested = isinstance(entry.default, BaseModel)
        choices = _choices(entry.annotation)
        several = "any" if isinstance(entry.default, tuple) else "one"
        allowed = f"{several} of {', '.join(f'`{choice}`' for choice in choices)}" if choices else ""
        meaning = "a group, see below" if nested else "; ".join(filter(None, [entry.description, allowed]))
        default = "–" if nested else "`{}`" if entry.default == {} else _shown(entry.default)
        rows.append(f"| `{prefix}{name}` | {default} | {meaning} |")
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("name", "prefix", "kind", "base"), TABLES, ids=[f"{kind.__module__}.{kind.__name__}" for _, _, kind, _ in TABLES]
)
def test_a_settings_table_is_the_one_of_the_code(
    name: str, prefix: str, kind: type[BaseModel], base: type[BaseModel] | None
) -> None:
    table = settings_table(prefix, kind, base)
    text = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")
    assert table in text, f"put this table into docs/{name}:\n{table}"


@page
def test_every_key_of_the_config_that_is_named_exists(page: Path) -> None:
    """`federation.rounds` and the like, in running text and behind --set."""
    text = page.read_text(encoding="utf-8")
    groups = {name for name in ("federation", "evaluation", "privacy") if name in Config.model_fields}
    pattern = rf"\b({'|'.join(groups)})\.(?!yaml\b)([a-z_]+)\b(?![./(])"
    for group, key in re.findall(pattern, " ".join([*quoted(text), *re.findall(r"--set (\S+)", text)])):
        kind = Config.model_fields[group].annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        assert key in kind.model_fields, f"{page.name}: {group}.{key}"


@page
def test_every_python_session_gives_what_it_shows(page: Path) -> None:
    sessions = "\n".join(fences(page.read_text(encoding="utf-8"), "pycon"))
    test = doctest.DocTestParser().get_doctest(sessions, {}, page.name, str(page), 0)
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not result.failed, "".join(said)


# ---- links, paths, names


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown renderers make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file) if file else page
        assert found.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(found), f"{page.name} links to {target}"


@page
def test_every_path_and_name_in_backticks_exists(page: Path) -> None:
    """`server/guard.py`, `server/guard.py:fault`, `tests/x/test_y.py::test_z`, `fed_fsad/x.py:Class.method`."""
    for word in quoted(page.read_text(encoding="utf-8")):
        if not re.fullmatch(rf"({'|'.join(ROOMS)})/[\w./*-]*(::?[\w.]+)?", word):
            continue
        file, _, name = word.replace("::", ":").partition(":")
        assert list(REPOSITORY.glob(file.rstrip("/"))), f"{page.name}: {word}"
        if name:
            assert defines((REPOSITORY / file).read_text(encoding="utf-8"), name), f"{page.name}: {word}"


def defines(source: str, dotted: str) -> bool:
    """Whether a module defines a class, function or constant of that name, or a class such a member."""
    body: list[ast.stmt] = ast.parse(source).body
    for name in dotted.split("."):
        found = [node for node in body if name in _names(node)]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


# ---- commands


@page
def test_every_fed_fsad_command_is_one(page: Path) -> None:
    group = typer.main.get_command(app)
    for words in commands(page.read_text(encoding="utf-8"), "fed-fsad"):
        check_command(group, words, page.name)


def check_command(group: Any, words: list[str], where: str) -> None:
    """Parse a call as the program would, without running it; a bare command's name is enough in running text."""
    said = f"{where}: fed-fsad {' '.join(words)}"
    asked = [word for word in words if word != "--help"]
    try:
        context = group.make_context("fed-fsad", list(asked), resilient_parsing=not asked)
        if asked:
            name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
            if isinstance(command, typer.core.TyperGroup):
                check_command(command, rest, where)
            else:
                command.make_context(name, rest, parent=context, resilient_parsing=not rest)
    except SystemExit as error:
        raise AssertionError(said) from error
    except Exception as error:
        raise AssertionError(f"{said}: {error}") from error


@page
def test_every_make_target_exists(page: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for words in commands(page.read_text(encoding="utf-8"), "make"):
        for target in words:
            assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE), f"{page.name}: make {target}"


@pytest.mark.parametrize(
    "wrong",
    [
        "fed-fsad simulat configs/demo.yaml",
        "fed-fsad simulate configs/demo.yaml --ou x",
        "fed-fsad simulate --out x",
        "fed-fsad data preview simulated --ou x",
    ],
)
def test_a_wrong_command_would_be_noticed(wrong: str) -> None:
    ((words),) = commands(f"```sh\n{wrong}\n```\n", "fed-fsad")
    with pytest.raises(AssertionError, match="simulat"):
        check_command(typer.main.get_command(app), words, "page")


def test_a_wrong_name_would_be_noticed() -> None:
    source = "class A:\n    def b(self) -> None: ...\nC: int = 1\n"
    assert [defines(source, name) for name in ("A", "A.b", "C", "A.c", "b", "D")] == [True] * 3 + [False] * 3
