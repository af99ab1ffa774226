"""`leafdb cert`: the cluster's CA, and the certificates of nodes and clients."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leafdb.errors import ConfigError
from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="Certificates for TLS.", no_args_is_help=True, rich_markup_mode=None)

DEFAULT_CA: Final = Path("./leafdb-ca")
JOIN_LISTEN: Final = "0.0.0.0:7419"  # a new host must reach it

CA = Annotated[Path, typer.Option("--ca", metavar="DIR", help="The directory of the CA.")]
DAYS = Annotated[int, typer.Option("--days", min=1, max=36_500, help="How long it is valid.")]
HOSTS = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="A name or address a node is reached at; once for each."),
]


def _days_style(value: Any) -> str:
    return "red" if int(value) < 30 else ""


COLUMNS: Final = [
    Column("file"), Column("kind"), Column("name"), Column("hosts"), Column("days_left", right=True, style=_days_style),
    Column("not_after"), Column("issuer"),
]  # fmt: skip


@app.command()
def init(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the CA is to live.")] = DEFAULT_CA,
    name: Annotated[str, typer.Option("--name", help="The cluster's name.")] = "leafdb",
    days: DAYS = 3_650,
) -> None:
    """Make a CA: ca.crt, which every node and client gets, and ca.key, which nobody gets.

    Example: leafdb cert init ./leafdb-ca --name shop
    """
    from leafdb_cli import authority

    session = session_of(ctx)
    authority.found(directory, name, days)
    _print(session, [directory / "ca.crt"])
    session.note(f"keep {directory / 'ca.key'} away from the nodes: whoever has it can make nodes")


@app.command()
def issue(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The node's name, or the client's.")],
    host: HOSTS = None,
    client: Annotated[bool, typer.Option("--client", help="For a client, which no node takes for a node.")] = False,
    ca: CA = DEFAULT_CA,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write; the CA's unless said.")
    ] = None,
    days: DAYS = 397,
) -> None:
    """Make NAME.crt and NAME.key for a node, or for a client.

    Example: leafdb cert issue node-1 --host node-1.example.org --host 10.0.0.1
    """
    from leafdb_cli.authority import Authority, Subject, with_suffix

    session = session_of(ctx)
    stem = (out or ca) / name
    for path in (with_suffix(stem, ".crt"), with_suffix(stem, ".key")):
        if path.exists():
            raise ConfigError(f"{path} is there already: leafdb cert rotate {with_suffix(stem, '.crt')} replaces it")
    Authority.load(ca).equip(Subject(name, tuple(host or ()), client=client), stem, days)
    _print(session, [with_suffix(stem, ".crt")])


@app.command()
def show(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files with certificates in PEM.")],
) -> None:
    """Say whom certificates are for, where they are good, and for how long.

    Example: leafdb cert show /etc/leafdb/node.crt /etc/leafdb/ca.crt
    """
    _print(session_of(ctx), files)


@app.command()
def rotate(
    ctx: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE...]", help="Certificates, as NAME.crt.")] = None,
    ca: CA = DEFAULT_CA,
    days: DAYS = 397,
    authority: Annotated[bool, typer.Option("--authority", help="The CA itself: begin to trust a new one.")] = False,
    finish: Annotated[bool, typer.Option("--finish", help="With --authority: trust the old one no more.")] = False,
) -> None:
    """Issue certificates anew, with new keys, for the same names and hosts; or have another CA follow this one.

    Example: leafdb cert rotate node-1.crt node-2.crt
    """
    from leafdb_cli import authority as maker

    session = session_of(ctx)
    if finish and not authority:
        raise typer.BadParameter("--finish goes with --authority")
    if authority == bool(files):
        raise typer.BadParameter("give certificates, or --authority")
    if authority:
        _rotate_authority(session, ca, finish=finish)
        return
    signer = maker.Authority.load(ca)
    # All are read before any is written.
    subjects = [(file, signer.subject_of(file)) for file in files or ()]
    for file, subject in subjects:
        signer.equip(subject, file.with_name(file.name.removesuffix(".crt")), days)
    _print(session, [file for file, _ in subjects])
    session.note("nodes take them over a few seconds after they are in place, or at SIGHUP")


def _rotate_authority(session: Session, ca: Path, *, finish: bool) -> None:
    from leafdb_cli import authority as maker

    if finish:
        maker.finish_rotation(ca)
        _print(session, [ca / "ca.crt"])
        session.note(f"give {ca / 'ca.crt'} to every node and client: the old CA is trusted no more where it is")
        return
    maker.begin_rotation(ca)
    _print(session, [ca / "ca.crt"])
    session.note(
        f"1. give {ca / 'ca.crt'}, which holds both CAs, to every node and client  2. leafdb cert rotate every "
        "certificate  3. leafdb cert rotate --authority --finish, and give them ca.crt again"
    )


@app.command()
def invite(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The node that is to be.")],
    host: HOSTS = None,
    address: Annotated[
        str, typer.Option("--address", metavar="HOST:PORT", help="Where the new host reaches this machine.")
    ] = "",
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where to wait for it.")] = JOIN_LISTEN,
    secret_file: Annotated[
        Path | None,
        typer.Option("--secret-file", metavar="FILE", help="The cluster secret, to be handed over as well."),
    ] = None,
    ca: CA = DEFAULT_CA,
    days: DAYS = 397,
) -> None:
    """Print a token with which one new host fetches its certificate, and wait for it: ten minutes, or --timeout.

    Example: leafdb cert invite node-4 --host 10.0.0.4 --address 10.0.0.9:7419
    """
    from leafdb_cli import cert_join
    from leafdb_cli.authority import Authority, Subject
    from leafdb_cli.credentials import secret_in

    session = session_of(ctx)
    cert_join.invite(
        Authority.load(ca),
        Subject(name, tuple(host or ())),
        address=address,
        listen=listen,
        secret=b"" if secret_file is None else secret_in(str(secret_file), "--secret-file"),
        days=days,
        timeout_s=session.timeout_s(cert_join.WAIT_S),
        say=lambda token: session.output.data(token.encode() + b"\n"),
        note=session.note,
    )
    session.note(f"{name} has its certificate")


@app.command()
def join(
    ctx: typer.Context,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="What leafdb cert invite printed; - for stdin.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write.")] = Path("/etc/leafdb"),
) -> None:
    """Fetch this host's certificate with a token: ca.crt, node.crt, node.key, and the secret where it is handed over.

    A token on the line can be read by everybody on this host while the command runs: give - and paste it.

    Example: leafdb cert join - --out /etc/leafdb
    """
    from leafdb_cli import cert_join

    session = session_of(ctx)
    if token == "-":  # noqa: S105 - no secret: where to read it
        token = sys.stdin.readline()
    cert_join.join(token, out, timeout_s=session.timeout_s(cert_join.JOIN_S))
    _print(session, [out / "node.crt", out / "ca.crt"])


def _print(session: Session, files: Sequence[Path]) -> None:
    from leafdb_cli import authority

    now = authority.utc_now()
    items = []
    for file in files:
        for certificate in authority.certificates_in(file):
            said = authority.describe(certificate)
            items.append(
                {
                    "file": str(file),
                    "kind": said.kind,
                    "name": said.name,
                    "hosts": list(said.hosts),
                    "issuer": said.issuer,
                    "not_before": said.not_before.isoformat(),
                    "not_after": said.not_after.isoformat(),
                    "days_left": (said.not_after - now).days,
                    "fingerprint": said.fingerprint,
                }
            )
    session.output.items("CertificateList", items, COLUMNS)
