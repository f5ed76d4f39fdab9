"""`fed-fsad provision` from a terminal: the issue's own words work, every refusal is one sentence."""

import re
from pathlib import Path

import pytest

from fed_fsad.provision.keys import fingerprint, make_node_keys
from tests.cli.test_cli import called
from tests.provision.conftest import PROJECT, made


@pytest.fixture(autouse=True)
def _wide_plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


class Terminal:
    """Calls `fed-fsad provision` in a folder with a project."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.kits = folder / "kits"
        self.project = folder / "project.yaml"
        self.project.write_text(PROJECT)
        self._tools = (monkeypatch, capsys)

    def ok(self, *words: str) -> str:
        """What it prints; it must succeed."""
        code, out, err = called(*self._tools, "provision", *words)
        assert (code, err) == (0, "")
        return out

    def refused(self, *words: str) -> str:
        """The one sentence with which it fails."""
        code, out, err = called(*self._tools, "provision", *words)
        assert code == 2
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kits that nobody changes."""
    return made(tmp_path_factory.mktemp("fresh")).folder


@pytest.mark.parametrize("words", [[], ["make"]])
def test_one_file_makes_all_kits(terminal: Terminal, words: list[str]) -> None:
    out = terminal.ok(*words, str(terminal.project), "--out", str(terminal.kits))
    assert sorted(path.name for path in terminal.kits.iterdir()) == ["authority", "north", "server", "south", "west"]
    assert f"north: send {terminal.kits / 'north'}, and delete its node.key here" in out
    assert "south: send" in out
    assert "it makes its own key and sends node.pub" in out
    assert "not empty" in terminal.refused(str(terminal.project), "--out", str(terminal.kits))


def test_the_life_of_a_federation(terminal: Terminal, tmp_path: Path) -> None:
    kits = str(terminal.kits)
    terminal.ok(str(terminal.project), "--out", kits)
    public = make_node_keys(tmp_path / "node.key")
    assert f"south: {fingerprint(public)}; compare it" in terminal.ok("accept", kits, "south", str(public))
    assert "server learns it when it starts" in terminal.ok("add-site", kits, "east", "--role", "predict-only")
    assert "north: revoked" in terminal.ok("revoke-site", kits, "north")
    assert "send the new node.key" in terminal.ok("rotate", kits, "site", "west")
    assert "copy *.crt and *.key" in terminal.ok("rotate", kits, "server")
    said = terminal.ok("rotate", kits, "authority")
    assert f"`fed-fsad provision rotate {kits} server`, restart the server" in said
    assert "first renew it with" in terminal.refused("rotate", kits, "finish")
    terminal.ok("rotate", kits, "server")
    assert "send ca.crt" in terminal.ok("rotate", kits, "finish")
    listed = terminal.ok("list", kits)
    sites, history = listed.split("valid until")
    assert [line.split()[:2] for line in sites.splitlines()[1:4]] == [
        ["south", "train"],
        ["west", "predict-only"],
        ["east", "predict-only"],
    ]
    assert fingerprint(public) in sites
    whats = [line.split()[1] for line in history.splitlines()[1:]]
    assert [whats.count(what) for what in ("authority", "certificate", "key", "revoked")] == [2, 6, 5, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.yaml"], r"nowhere\.yaml: the project cannot be read"),
        (["list", "nowhere"], "nowhere holds no kits with their authority"),
        (["add-site", "KITS", "north"], "two sites are called 'north'"),
        (["revoke-site", "KITS", "nort"], "there is no site 'nort' .*did you mean 'north'"),
        (["accept", "KITS", "south", "nowhere.pub"], r"nowhere\.pub: the public key cannot be read"),
        (["rotate", "KITS", "site"], "give the name of a site with `site`"),
        (["rotate", "KITS", "server", "north"], "give the name of a site with `site`"),
        (["rotate", "KITS", "finish"], "no authority is being replaced"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(terminal: Terminal, fresh: Path, words: list[str], said: str) -> None:
    assert re.search(said, terminal.refused(*(word.replace("KITS", str(fresh)) for word in words)))


@pytest.mark.parametrize("command", ["make", "add-site", "accept", "revoke-site", "rotate", "list"])
def test_every_command_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, out, _ = called(monkeypatch, capsys, "provision", command, "--help")
    assert code == 0
    for line in out.splitlines():
        if match := re.match(r"\W*(--[a-z-]+) ", line):
            assert len(re.findall(r"[A-Za-z]{2,}", line)) >= 4, f"{match[1]} is not explained: {line}"
