"""What becomes of a node that its cluster does not have any more: which proof it takes, and what is left to do.

**Proof.** Bans only grow, a start that was seen was seen, and a number keeps its store: each of these, once true,
stays true. So one member that says so is enough, however old its metadata are; one that is behind says less, never
more; only of what was before `cluster recover` it may say too much, and is not believed. But it must be a member that
says it: a refusal during a handshake may come from anybody who has taken an address, and is no more than a reason to
ask (`recognition`), over a session in which both sides have proved that they know the secret. Newer metadata that do
not name this node are proof as well.

**What is left.** The node stops at once and ends with the reason; its data stay where they are. Except one whose join
was given up: by the last metadata it installed it was joining while the old owners were read, so nothing that anybody
was ever told is on it alone. It empties its store and is blank again, so that it may be staged again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leafdb.node.endings import Expelled
from leafdb.node.logs import Log
from leafdb.node.register import META_TREE
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase
from leafdb.types import Durability, NodeId
from leafdb.wire.hello import Refusal

if TYPE_CHECKING:
    from leafdb.node.node import Node

EXPELLED_KEY: Final = b"expelled"
"""In the META tree: why this store's number is banned. A node that finds it does not start."""
FINAL: Final = frozenset({Refusal.BANNED, Refusal.ROLLED_BACK, Refusal.CLONE, Refusal.OTHER_STORE})
"""What a node that is told so ends with."""

_AGAIN: Final = (
    "To use this machine again, empty the data directory, start the node and stage it: it comes back as a new member"
)
_REPLACE: Final = (
    "if that is lost, empty this one, start the node with a name and addresses of its own, and replace this member by "
    "it: leafdb cluster stage replace NAME ADDRESS"
)


log: Log = Log("expulsion")


def join_was_given_up(installed: ClusterMetadata | None, me: NodeId) -> bool:
    """Whether a banned node's store may be emptied: by the last metadata it installed it was coming, and nobody read
    from it."""
    plan = None if installed is None else installed.plan
    return plan is not None and me in plan.joining and plan.phase in (Phase.WRITE_BOTH_READ_OLD, Phase.RETREAT)


def sentence(why: Refusal, installed: ClusterMetadata | None, me: NodeId, teller: str) -> str:
    """What to tell whoever finds the node stopped. `teller`: who said so."""
    cluster = "its cluster" if installed is None else f"cluster {installed.cluster_name!r}"
    member = (
        f"node {me}"
        if installed is None or me not in installed.members
        else f"{installed.members[me].name} (node {me})"
    )
    match why:
        case Refusal.BANNED:
            plan = None if installed is None else installed.plan
            how = "left" if plan is not None and me in plan.leaving else "was removed from"
            return f"{member} {how} {cluster} for good, says {teller}; its data are as they were. {_AGAIN}"
        case Refusal.ROLLED_BACK:
            return (
                f"the data directory of {member} is an old copy: {teller} of {cluster} has met a later start of it. "
                f"Give it its newest directory back; {_REPLACE}"
            )
        case Refusal.CLONE:
            return (
                f"another process has run, or runs, from a copy of the data directory of {member}, and {teller} of "
                f"{cluster} has met that one. Only one of the two may run, on the newest directory; {_REPLACE}"
            )
        case _:
            return (
                f"{teller} of {cluster} knows {member} by another store than lies in its data directory. Give it that "
                f"one back; {_REPLACE}"
            )


def expel(node: Node, why: Refusal, teller: str) -> None:
    """There is proof that the cluster does not have this node: it serves nothing from now on, and ends."""
    if node.tenure.is_over:
        return
    view = node.view
    if why is Refusal.BANNED and join_was_given_up(view.metadata, view.self_id):
        log.warning("the join was given up: this store is emptied, and can be staged again", node=int(view.self_id))
        node.tenure.end(None, anew=True)
        return
    error = Expelled(sentence(why, view.metadata, view.self_id, teller), why=why)
    log.error("this node is not of its cluster any more", why=str(why), says=teller)
    if why is Refusal.BANNED:
        node.engine.write(((META_TREE, EXPELLED_KEY, error.message.encode()),), Durability.ALWAYS, None)
    node.tenure.end(error)
