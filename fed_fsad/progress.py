"""What a person sees while a run goes on: live bars on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from fed_fsad.evaluation.report.words import epsilon as rounded_up
from fed_fsad.rundir import Event


class Progress(Protocol):
    """Takes events as they happen; used as a context manager around a run."""

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def __enter__(self) -> Self:
        """Start showing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing, the last state left on the screen."""


class PlainProgress:
    """One line for what matters: rounds, evaluations, warnings."""

    def __call__(self, event: Event) -> None:
        line = describe(event)
        if line:
            print(line, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.flush()


class LiveProgress:
    """Bars for rounds and steps, and a table of the sites' last answers."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Bars(*columns, console=console)
        self._rounds = self._bars.add_task("rounds", total=None)
        self._steps = self._bars.add_task("waiting", total=None, visible=False)
        self._sites: dict[str, tuple[str, str, str]] = {}
        self._figures: dict[str, str] = {}
        self._live = Live(self._picture(), console=console, refresh_per_second=8)

    def __call__(self, event: Event) -> None:
        match event["kind"]:
            case "start":
                self._bars.update(self._rounds, total=event["rounds"], completed=event["round"])
            case "step":
                label = f"{event['site']} · {event['method']} · {event['what']}"
                self._bars.update(
                    self._steps, visible=True, description=label, completed=event["done"], total=event["total"]
                )
            case "site":
                epsilon = event.get("epsilon")
                losses = ", ".join(
                    f"{name} {block['loss']:.3f}" for name, block in event.get("methods", {}).items() if "loss" in block
                )
                spent = "" if epsilon is None else rounded_up(epsilon)
                self._sites[event["site"]] = (event["reason"] or event["status"], losses, spent)
            case "round":
                self._bars.update(self._rounds, completed=event["round"])
            case "evaluation":
                self._figures[event["method"]] = _auroc(event)
            case "warning" | "arm" | "found":
                self._live.console.print(describe(event), markup=False)
        self._live.update(self._picture())

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.update(self._steps, visible=False)
        self._live.update(self._picture(), refresh=True)
        self._live.stop()

    def _picture(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for heading in ("site", "answer", "loss", "ε"):
            table.add_column(heading, style="bold" if heading == "site" else "")
        for site, cells in sorted(self._sites.items()):
            table.add_row(*(Text(cell) for cell in (site, *cells)))
        figures = Table(box=None, pad_edge=False, show_header=False)
        for method, text in sorted(self._figures.items()):
            figures.add_row(Text(method, style="bold"), text)
        return Group(self._bars, *([table] if self._sites else []), *([figures] if self._figures else []))


def make_progress(console: Console) -> Progress:
    """Live bars when a person looks at a terminal, plain lines otherwise."""
    return LiveProgress(console) if console.is_terminal else PlainProgress()


def describe(event: Event) -> str | None:
    """An event as one line, or None when it is not worth one."""
    match event["kind"]:
        case "start":
            return _resumed(event["round"], event["rounds"])
        case "round":
            lost = "".join(f"; {site}: {reason}" for site, reason in event["rejected"].items())
            size = (event["bytes_up"] + event["bytes_down"]) / 1e6
            return f"round {event['round']}: {event['replies']} replies, {event['seconds']:.1f} s, {size:.2f} MB{lost}"
        case "site" if event.get("epsilon") is not None:
            return f"  {event['site']}: ε = {rounded_up(event['epsilon'])} at δ = {event['delta']:g}"
        case "evaluation":
            return f"  {event['method']}: image AUROC {_auroc(event)}"
        case "arm":
            owner = f" {event['site']}" if event.get("site") else ""
            return f"  {event['arm']}{owner}, {event['method']}: {_auroc(event)}"
        case "site_evaluation":
            return f"  {event['site']} on its own images, {event['method']}: {event['headline']:.3f}"
        case "warning":
            return f"warning: {event['text']}"
        case "found":
            return f"data: {event['text']}"
    return None


def _resumed(done: int, rounds: int) -> str | None:
    if done == 0:
        return None
    return f"training from round {done + 1} to {rounds}" if done < rounds else f"all {rounds} rounds are trained"


def _auroc(event: Event) -> str:
    figures = event["image_auroc"].items()
    return "  ".join(f"{key} {'–' if value is None else f'{value:.3f}'}" for key, value in figures)
