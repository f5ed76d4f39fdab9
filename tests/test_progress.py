"""What a person sees: one line per thing that matters, or live bars that no event and no site can break."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from fed_fsad.progress import LiveProgress, PlainProgress, make_progress
from fed_fsad.rundir import Event

SITE: dict[str, Any] = {
    "kind": "site", "round": 2, "site": "north", "status": "ok", "reason": "", "methods": {"d24fad": {"loss": 0.51234}},
    "epsilon": 2.3401, "delta": 1e-5,
}  # fmt: skip
ROUND: dict[str, Any] = {
    "kind": "round", "round": 2, "attempt": 1, "seconds": 3.25, "bytes_up": 1_200_000, "bytes_down": 2_800_000,
    "replies": 3, "complete": True, "rejected": {"south": "it claims 0 images"},
}  # fmt: skip
EVALUATION: dict[str, Any] = {
    "kind": "evaluation", "round": 2, "method": "d24fad", "image_auroc": {"2": 0.8123, "4": None},
}  # fmt: skip
ARM: dict[str, Any] = {
    "kind": "arm", "arm": "local", "site": "north", "method": "sdmad", "image_auroc": {"p1": 0.75},
}  # fmt: skip
LINES: list[tuple[Event, str]] = [
    ({"kind": "start", "round": 0, "rounds": 6}, ""),
    ({"kind": "start", "round": 2, "rounds": 6}, "training from round 3 to 6"),
    ({"kind": "start", "round": 6, "rounds": 6}, "all 6 rounds are trained"),
    ({"kind": "asked", "round": 1, "site": "north"}, ""),
    ({"kind": "step", "site": "north", "method": "d24fad", "what": "steps", "done": 1, "total": 2}, ""),
    (SITE, "  north: ε = 2.35 at δ = 1e-05"),
    ({**SITE, "epsilon": None, "delta": None}, ""),
    (ROUND, "round 2: 3 replies, 3.2 s, 4.00 MB; south: it claims 0 images"),
    (EVALUATION, "  d24fad: image AUROC 2 0.812  4 –"),
    (ARM, "  local north, sdmad: p1 0.750"),
    ({**ARM, "arm": "pooled", "site": None}, "  pooled, sdmad: p1 0.750"),
    ({"kind": "warning", "round": 1, "text": "south is late"}, "warning: south is late"),
    ({"kind": "skipped", "images": []}, ""),
    ({"kind": "something new"}, ""),
]


@pytest.mark.parametrize(("event", "line"), LINES, ids=[f"{i}-{event['kind']}" for i, (event, _) in enumerate(LINES)])
def test_plain_lines(event: Event, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with PlainProgress() as progress:
        progress(event)
    assert capsys.readouterr().out == (f"{line}\n" if line else "")


def live(*events: Event) -> str:
    """The text of all that was drawn while these events came in."""
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=120, height=40, color_system=None)
    with LiveProgress(console) as progress:
        for event in events:
            progress(event)
    return screen.getvalue()


def test_live_shows_rounds_steps_sites_losses_auroc_and_epsilon() -> None:
    start = {"kind": "start", "round": 1, "rounds": 6}
    step = {"kind": "step", "site": "south", "method": "sdmad", "what": "steps", "done": 3, "total": 8}
    text = live(start, SITE, ROUND, EVALUATION, step)
    last = text[text.rindex("rounds") :]
    assert "2/6" in last
    for word in ("north", "ok", "d24fad 0.512", "2.35", "2 0.812  4 –"):
        assert word in last, word
    assert "south · sdmad" not in last, "nobody works any more"


def test_live_shows_the_step_while_it_is_taken() -> None:
    screen = StringIO()
    progress = LiveProgress(Console(file=screen, force_terminal=True, width=120, height=40, color_system=None))
    with progress:
        progress({"kind": "step", "site": "south", "method": "sdmad", "what": "steps", "done": 3, "total": 8})
        progress({"kind": "warning", "text": "look out"})  # printing above the bars draws them anew
    assert "south · sdmad · steps" in screen.getvalue()
    assert "3/8" in screen.getvalue()
    assert "warning: look out" in screen.getvalue()


def test_live_survives_every_event_unknown_ones_too() -> None:
    assert "p1 0.750" in live(*[event for event, _ in LINES])


@pytest.mark.parametrize("reason", ["[/bold] [link=x]", "affine[0] has shape (4,)", "[red]all is well"])
def test_what_a_site_writes_is_shown_as_it_is_and_never_read_as_markup(reason: str) -> None:
    assert reason in live({**SITE, "status": "rejected", "reason": reason})


def test_bars_are_for_terminals_only() -> None:
    assert isinstance(make_progress(Console(file=StringIO(), force_terminal=True)), LiveProgress)
    assert isinstance(make_progress(Console(file=StringIO())), PlainProgress)
