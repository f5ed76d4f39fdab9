"""`fed-fsad provision`: kits for a server and its sites, and everything that changes afterwards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click
import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

if TYPE_CHECKING:
    from fed_fsad.provision.kits import Kits


class MakeByDefault(TyperGroup):
    """`provision project.yaml` is `provision make project.yaml`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command in when the first word looks like a file."""
        first = args[0] if args else ""
        return super().parse_args(ctx, ["make", *args] if first.endswith((".yaml", ".yml")) else args)


app = typer.Typer(
    cls=MakeByDefault,
    help="Kits for a server and its sites from one project.yaml; sites that come and go, keys that are renewed.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(metavar="KITS", help="The folder of all kits, with `authority` in it.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The site's name.")]
WIDE = 200
"""Columns of the lists: fingerprints are compared letter by letter and must not be cut."""
PublicKey = Annotated[Path | None, typer.Option(help="The public half of a key pair that the site made itself.")]


@app.command()
def make(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="project.yaml: the server, the sites, the run.")],
    out: Annotated[Path, typer.Option(help="Folder for the kits; it must not exist yet, or be empty.")] = Path("kits"),
) -> None:
    """Make one kit for the server and one for every site: certificates, keys, settings, scripts, instructions.

    PROJECT is a YAML file: name, contact, server (address, port, superlink_port), sites (name, role, own_key,
    rehearsal), days, authority_days, curve, federation.
    """
    from fed_fsad.provision.make import make as make_kits
    from fed_fsad.provision.project import load_project

    kits = make_kits(load_project(project), out)
    _say(f"server: copy {kits.server} to its host and read README.md in it")
    for site in kits.project.sites:
        last = "; it makes its own key and sends node.pub" if site.own_key else ", and delete its node.key here"
        _say(f"{site.name}: send {kits.folder / site.name}{last}")
    _say(f"{kits.authority} stays here: who has ca.key can make a false server")


@app.command()
def add_site(
    kits: Folder,
    name: Name,
    role: Annotated[
        Literal["train", "predict-only"], typer.Option(help="predict-only: sends figures, never trains.")
    ] = "train",
    own_key: Annotated[bool, typer.Option("--own-key", help="The site makes its key pair later.")] = False,
    public_key: PublicKey = None,
) -> None:
    """Make the kit of one more site, and name it in the server's federation.yaml.

    KITS is the folder of all kits, with `authority` in it. NAME is the new site's.
    """
    opened = _open(kits)
    opened.add({"name": name, "role": role, "own_key": own_key or public_key is not None}, public_key)
    _say(f"{name}: send {kits / name}")
    _tell_server(opened)


@app.command()
def accept(
    kits: Folder,
    name: Name,
    public_key: Annotated[Path, typer.Argument(metavar="FILE", help="The node.pub that the site sent.")],
) -> None:
    """Take the public key that a site made itself.

    KITS is the folder of all kits, NAME the site, FILE the node.pub that it sent.
    """
    from fed_fsad.provision.keys import fingerprint

    opened = _open(kits)
    opened.accept(name, public_key)
    _say(f"{name}: {fingerprint(public_key)}; compare it with the site on the telephone")
    _tell_server(opened)


@app.command()
def revoke_site(kits: Folder, name: Name) -> None:
    """Refuse a site from now on: its key goes to sites/revoked, and the server unregisters it.

    KITS is the folder of all kits, NAME the site.
    """
    opened = _open(kits)
    opened.revoke(name)
    _say(f"{name}: revoked, its public key lies in {opened.server / 'sites' / 'revoked'}")
    _tell_server(opened)
    _print_kits(opened)


@app.command()
def rotate(
    kits: Folder,
    what: Annotated[
        Literal["server", "site", "authority", "finish"],
        typer.Argument(
            help="server: its certificates. site: the key of NAME. authority: a new one, the old one still trusted. "
            "finish: the old authority trusted no more."
        ),
    ],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The site, with `site`.")] = None,
    public_key: PublicKey = None,
) -> None:
    """Renew certificates or a site's key; the old ones are refused afterwards.

    KITS is the folder of all kits. WHAT is `server` (its certificates), `site` (the key of NAME), `authority` (a new
    one, the old one still trusted), or `finish` (the old authority trusted no more).
    """
    from fed_fsad.errors import ConfigError
    from fed_fsad.provision import trust

    opened = _open(kits)
    if (what == "site") != (name is not None):
        raise ConfigError("give the name of a site with `site`, and with nothing else: rotate KITS site NAME")
    if what == "site" and name is not None:
        opened.renew_key(name, public_key)
        _say(f"{name}: {'its new key is known' if public_key else f'send the new node.key in {kits / name}'}")
        _tell_server(opened)
    elif what == "server":
        trust.renew_certificates(opened)
        _show_certificate(opened)
    elif what == "authority":
        trust.replace_authority(opened)
        command = f"fed-fsad provision rotate {kits}"
        _say("send ca.crt, which holds both authorities now, to every site and to the server's host; then")
        _say(f"`{command} server`, restart the server, `{command} finish`")
    else:
        trust.end_overlap(opened)
        _say("send ca.crt to every site and to the server's host, and restart the server")


@app.command("list")
def list_(kits: Folder) -> None:
    """Sites with the fingerprints of their keys, certificates with their dates.

    KITS is the folder of all kits, with `authority` in it.
    """
    _print_kits(_open(kits))


def _open(folder: Path) -> "Kits":
    from fed_fsad.provision.kits import Kits  # imported late: `--help` should not wait for torch

    return Kits.open(folder)


def _tell_server(kits: "Kits") -> None:
    """Let the server know at once when it runs in these very kits; otherwise say what to do."""
    from server import service
    from server.kit import ServerKit

    kit = ServerKit.open(kits.server)
    if kit.superlink.daemon.pid() is None:
        _say("the server learns it when it starts")
        _say(f"if it runs on another host, copy {kits.server / 'sites'} there and call `fed-fsad server sync`")
        return
    done = service.sync(kit)
    _say("; ".join(f"{what}: {', '.join(names)}" for what, names in done.items() if names) or "the server knew it")


def _show_certificate(kits: "Kits") -> None:
    """Let nginx show the new certificate at once when it runs in these very kits; otherwise say what to do."""
    from server.kit import ServerKit
    from server.proxy import Proxy

    proxy = Proxy(ServerKit.open(kits.server))
    if proxy.daemon.pid() is None:
        _say(f"new certificates; if the server is on another host, copy *.crt and *.key of {kits.server} there")
        return
    proxy.reload()
    _say("nginx shows the new certificate; the SuperLink takes its own when the server is started the next time")


def _print_kits(kits: "Kits") -> None:
    from fed_fsad.provision.keys import fingerprint
    from fed_fsad.provision.record import issued

    table = Table("site", "role", "key", box=None, pad_edge=False)
    for site in kits.project.sites:
        public = kits.public_key(site.name)
        table.add_row(site.name, site.role, fingerprint(public) if public.exists() else "not sent yet")
    console = Console(width=WIDE)
    console.print(table)
    history = Table("when", "what", "name", "valid until", "fingerprint", box=None, pad_edge=False)
    for line in issued(kits.authority):
        history.add_row(line["when"], line["what"], line["name"], line.get("until", "")[:10], line["fingerprint"])
    console.print(history)


def _say(text: str) -> None:
    Console(soft_wrap=True).print(text, highlight=False, markup=False)
