"""The house: imports only point down, Flower stays on its floors, files stay small, one version."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fed_fsad import __version__

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("fed_fsad", "server", "clients", "simulations", "pretraining")
FLOORS: tuple[tuple[str, ...], ...] = (
    ("fed_fsad", "fed_fsad.errors", "fed_fsad.seeds", "fed_fsad.durable", "fed_fsad.names", "fed_fsad.explain",
     "fed_fsad.switches", "fed_fsad.daemon", "fed_fsad.tied", "fed_fsad.quick_yaml"),
    ("fed_fsad.assets",),
    ("fed_fsad.data",),
    ("fed_fsad.methods",),
    ("fed_fsad.evaluation", "fed_fsad.privacy"),
    ("fed_fsad.fields", "fed_fsad.arrays", "fed_fsad.messages", "fed_fsad.rundir", "fed_fsad.summary",
     "fed_fsad.progress", "fed_fsad.residents", "fed_fsad.machine", "fed_fsad.config", "fed_fsad.tracking",
     "fed_fsad.watching"),
    ("fed_fsad.provision", "fed_fsad.secagg"),
    ("server", "clients"),
    ("simulations", "fed_fsad.inference"),
    ("fed_fsad.cli",),
)  # fmt: skip
FLOWER = (
    "fed_fsad.fields",
    "fed_fsad.arrays",
    "fed_fsad.messages",
    "fed_fsad.secagg",
    "server",
    "clients",
    "simulations",
)
FILES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in the file; `from a import b` is a.b when that is a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which floor they reach"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def floor(module: str) -> int | None:
    """The floor of a module of ours, by its longest name in FLOORS; None for the world outside and for pretraining."""
    if module.split(".")[0] not in PACKAGES or inside(module, "pretraining"):
        return None
    names = {name: level for level, group in enumerate(FLOORS) for name in group}
    known = [name for name in names if (module == name if name == "fed_fsad" else inside(module, name))]
    assert known, f"{module} is on no floor; put it on one in FLOORS"
    return names[max(known, key=len)]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_only_point_down_or_stay_on_their_floor(path: Path) -> None:
    own = floor(module_of(path))
    for target in imports(path):
        level = floor(target)
        if own is not None and level is not None:
            assert level <= own, f"{module_of(path)} reaches up to {target}"
        assert own is None or not inside(target, "pretraining"), f"{module_of(path)} needs what is not installed"


@pytest.mark.parametrize(("one", "other"), [("server", "clients"), ("fed_fsad.evaluation", "fed_fsad.privacy")])
def test_neighbours_do_not_know_each_other(one: str, other: str) -> None:
    for path in FILES:
        for mine, theirs in ((one, other), (other, one)):
            if inside(module_of(path), mine):
                assert not any(inside(target, theirs) for target in imports(path)), path


def test_only_the_federated_floors_know_flower() -> None:
    users = {module_of(path) for path in FILES if any(inside(target, "flwr") for target in imports(path))}
    assert users, "this test must see something"
    assert [module for module in sorted(users) if not any(inside(module, name) for name in FLOWER)] == []


def test_methods_and_pretraining_come_up_without_flower() -> None:
    wanted = "fed_fsad.methods.d24fad, fed_fsad.methods.sdmad, pretraining.__main__"
    code = f"import sys; sys.modules['flwr'] = None; import {wanted}; print('flwr.app' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "False"


def test_no_file_is_too_long_to_be_read() -> None:
    tests = sorted((REPOSITORY / "tests").rglob("*.py"))
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in [*FILES, *tests]}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_there_is_one_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
