"""`leafdb cluster recover`: out of the permanent loss of the control set's majority. The last resort, and a loud one.

Without a majority the metadata cannot change: keys are served, but nobody joins, leaves or makes a bucket. If those
members can come back, bring them back. If they cannot, this begins a new generation of the cluster from the newest
metadata that is left, with a new control set; who still lives in the old one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from leafdb_cli.render import Column, joined
from leafdb_cli.session import Session, session_of

RECOVER_TIMEOUT_S: Final = 30.0

COLUMNS: Final = [
    Column("generation"), Column("control", "control set", joined),
    Column("without", show=lambda names: joined(names or ())), Column("lost", "may be lost", joined),
]  # fmt: skip


def recover(
    ctx: typer.Context,
    lost: Annotated[
        list[str] | None,
        typer.Option(
            "--lost",
            metavar="NODE",
            help="A member that never comes back; repeat. Unless named: who cannot be reached.",
        ),
    ] = None,
    understood: Annotated[
        bool, typer.Option("--i-understand-data-loss", help="With --yes: do it without asking.")
    ] = False,
) -> None:
    """Begin anew without a lost majority.

    When a majority of the control set is lost for good, this begins a new generation of the cluster. Changes of
    members, buckets and owners that only the lost ones knew are lost. With --dry-run, which those may be.

    Example: leafdb cluster recover --lost dev-0 --lost dev-1 --dry-run
    """
    session = session_of(ctx, dry_run=True)
    named = list(lost or ())
    cluster = str(session.ask("cluster.status")["name"])
    would = session.ask(
        "cluster.recover", {"lost": named, "dry_run": True, "cluster": cluster}, timeout_s=RECOVER_TIMEOUT_S
    )
    if session.options.dry_run:
        _print(session, would)
        session.note("nothing was done")
        return
    # Nobody was named: those who cannot be reached are meant, as they were shown, whoever comes back meanwhile.
    named = named or [str(name) for name in would.get("without") or ()]
    losses = [
        f"generation {would['generation']} of {cluster} would begin, kept by {joined(would['control'])},",
        f"without {joined(named)};",
        "whoever lives on in the generation before is refused. May be lost:",
        *(f"  x {text}" for text in would["lost"] or ("nothing that is known of",)),
    ]
    session.confirm_loss(cluster, losses, understood=understood)
    made = session.ask(
        "cluster.recover",
        {"lost": named, "dry_run": False, "cluster": cluster},
        changes=True,
        timeout_s=RECOVER_TIMEOUT_S,
    )
    _print(session, made)
    session.note(f"generation {made['generation']} has begun: leafdb repair run --wait compares every range")


def _print(session: Session, reply: Mapping[str, Any]) -> None:
    item = {name: value for name, value in reply.items() if name != "errors"}
    session.output.items("RecoveryList", [item], COLUMNS, errors=reply.get("errors") or {})
