"""`fed-fsad privacy`: what a budget buys before training, what is spent of it, what a run guarantees."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fed_fsad.cli.audit import audit
from fed_fsad.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Plan a privacy budget, read a ledger, explain a run's guarantees.")
app.command("audit")(audit)


@app.command()
def plan(
    images: Annotated[int, typer.Option(min=1, help="Training images at the site that the method can use.")],
    method: Annotated[str, typer.Option(help="The detector, with its default settings.")] = "sdmad",
    epsilon: Annotated[float | None, typer.Option(help="ε over all rounds; leave it out to learn it.")] = None,
    sigma: Annotated[float | None, typer.Option(help="Noise multiplier; leave it out to learn it.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of training; leave it out to learn it.")] = None,
    delta: Annotated[float, typer.Option(help="δ; must stay below 1 / images.")] = 1e-5,
    per_round: Annotated[
        int, typer.Option("--per-round", min=1, help="Noisy steps a round: methods times steps_per_round.")
    ] = 1,
    expected_batch: Annotated[int, typer.Option(min=1, help="The policy's expected_batch.")] = 256,
    patients: Annotated[
        int | None, typer.Option(min=1, help="Patients the images are of, when the unit is the patient.")
    ] = None,
) -> None:
    """Of ε, σ and rounds give two and learn the third, and what each part of the detector would lose to noise.

    Nothing is read but the detector's shape. Batches are full up to the policy's expected_batch, sampled above it.
    """
    from fed_fsad import methods  # imported late: `--help` should not wait for torch
    from fed_fsad.privacy.planning import complete, expectation, records_for, rho_of, scalars_by_part

    if delta * images >= 1:
        raise ConfigError(f"delta {delta:g} is not below 1 / {images} images; set it to {0.1 / images:.1g} or less")
    built = methods.build(method, methods.settings_type(method)(), 0)
    records = (images if patients is None else patients) // (built.episode.supports + 1)
    if not records:
        raise ConfigError(f"{images} images make no privacy record of {built.episode.supports + 1}; add images")
    rate = min(1.0, expected_batch / records)
    budget = complete(epsilon, sigma, None if rounds is None else rounds * per_round, delta, rate)
    batches = "full batches" if rate == 1 else f"batches of {expected_batch} records on average"
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"ε = {budget.epsilon:.4g} at δ = {budget.delta:g} for {budget.releases // per_round} rounds with {per_round} "
        f"noisy {batches} each; noise multiplier σ = {budget.sigma:.4g}; {records} privacy records"
    )
    table = Table("part", "scalars", "ρ", "what to expect", "records for ρ ≤ 1", box=None, pad_edge=False)
    sizes = scalars_by_part(built)
    for part, dims in [*sizes.items(), ("all of them", sum(sizes.values()))]:
        rho = rho_of(budget, dims, records)
        table.add_row(part, f"{dims:,}", f"{rho:.3g}", expectation(rho), f"{records_for(budget, dims, 1.0):,}")
    console.print(table)
    rounds_too = "the number of rounds does not change it" if rate == 1 else "or a larger expected_batch"
    console.print(f"for a lower ρ: more images, a smaller part, or a larger ε; {rounds_too}")


@app.command()
def spent(
    folders: Annotated[list[Path], typer.Argument(help="State folders of a site, each with its ledger.")],
) -> None:
    """What is spent under every ledger of a site, run by run. Looking changes nothing, also while a run goes on."""
    from fed_fsad.privacy.account import read_account

    console = Console(soft_wrap=True, highlight=False)
    for account in [read_account(folder) for folder in folders]:
        console.print(
            f"[bold]{escape(str(account.path))}[/]: ε = {account.epsilon:.4g} spent, δ = {account.delta:g}, "
            f"unit {account.unit}"
        )
        if account.insecure:
            console.print(f"[bold red]{account.insecure} releases had seeded noise: ε means nothing here[/]")
        table = Table("run", "rounds", "releases", "ε of it alone", box=None, pad_edge=False)
        for share in account.runs:
            table.add_row(share.run, str(share.rounds), str(share.releases), f"{share.epsilon:.4g}")
        console.print(table)
    if len(folders) > 1:
        console.print("a person whose images lie behind several ledgers is protected by the sum of their ε at most")


@app.command()
def explain(run: Annotated[Path, typer.Argument(help="Run directory.")]) -> None:
    """The guarantee of every site of a run, in sentences, with what is not covered."""
    from fed_fsad.privacy.guarantees import SIDE_BY_SIDE, guarantees, hospital_level
    from fed_fsad.rundir import RunDir

    opened = RunDir(run)
    console = Console(soft_wrap=True, highlight=False)
    events = opened.events()
    for site, sentence in guarantees(opened.config().trainers, events).items():
        console.print(f"[bold]{escape(site)}[/]: {escape(sentence)}")
    if central := hospital_level(events):
        console.print(f"[bold]hospital level[/]: {escape(str(central['claim']))}")
        console.print(SIDE_BY_SIDE)
