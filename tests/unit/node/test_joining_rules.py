"""Promises: a store becomes a member by a plan that names it, once and for good; what is refused says what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from leafdb.config import Address, Config, ListenConfig, NodeConfig
from leafdb.errors import NotApplied
from leafdb.node.expulsion import join_was_given_up, sentence
from leafdb.node.joining import Invitation, Newcomer, member_of
from leafdb.ring import transitions
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase
from leafdb.ring.proposal import propose
from leafdb.ring.staging import ForceRemove, Join, Leave
from leafdb.storage.identity import Identity
from leafdb.types import NodeId
from leafdb.wire.hello import Refusal
from support.clusters import CLUSTER_ID, cluster, proposed

STORE, OTHER = b"s" * 16, b"o" * 16
ME = NodeId(4)
BLANK = Identity(store_id=STORE, boot=1)


def joining(store: bytes = STORE) -> ClusterMetadata:
    """Three members, and a fourth that comes."""
    staged = transitions.stage(cluster(3), Join(proposed(3), store))
    return transitions.commit(staged, propose(staged).id)


def plan_id(metadata: ClusterMetadata) -> bytes:
    assert metadata.plan is not None
    return metadata.plan.id


def newcomer(**changed: object) -> Newcomer:
    made = Newcomer(name="node-3", cluster="", identity=BLANK, metadata=None)
    return replace(made, **changed)  # type: ignore[arg-type]


def why_not(who: Newcomer, metadata: ClusterMetadata, node: int = ME, plan: bytes | None = None) -> str:
    with pytest.raises(NotApplied) as refused:
        who.check(Invitation(metadata, NodeId(node)), plan_id(metadata) if plan is None else plan)
    return str(refused.value)


def test_a_blank_store_may_become_the_member_that_a_plan_names_it() -> None:
    metadata = joining()
    assert newcomer().blank
    newcomer().check(Invitation(metadata, ME), plan_id(metadata))
    newcomer(cluster="tests").check(Invitation(metadata, ME), plan_id(metadata))


def test_a_plan_that_names_no_store_takes_any_blank_one() -> None:
    metadata = joining(b"")
    newcomer(identity=Identity(store_id=OTHER)).check(Invitation(metadata, ME), plan_id(metadata))


def test_another_store_name_cluster_or_plan_is_refused() -> None:
    metadata = joining()
    assert "another store was staged" in why_not(newcomer(identity=Identity(store_id=OTHER)), metadata)
    assert "this node is called 'else'" in why_not(newcomer(name="else"), metadata)
    assert "cluster.name = 'away'" in why_not(newcomer(cluster="away"), metadata)
    assert "no plan 00" in why_not(newcomer(), metadata, plan=bytes(16))
    assert "no member" in why_not(newcomer(), metadata, 9)
    assert "node 1 joins" in why_not(newcomer(name="node-0"), metadata, 1)


@pytest.mark.parametrize("phase", [Phase.WRITE_BOTH_READ_NEW, Phase.RETREAT])
def test_a_blank_store_comes_too_late_once_copies_are_done(phase: Phase) -> None:
    metadata = joining()
    metadata = transitions.advance(metadata, plan_id(metadata))
    if phase is Phase.RETREAT:
        metadata = transitions.abort(metadata, plan_id(metadata))
    assert "too late" in why_not(newcomer(), metadata)
    stamped = replace(BLANK, cluster_id=CLUSTER_ID, node_id=int(ME))
    newcomer(identity=stamped, metadata=metadata).check(Invitation(metadata, ME), bytes(16))


def test_the_member_itself_is_asked_again_without_harm_and_a_stamped_store_goes_on() -> None:
    metadata = joining()
    stamped = replace(BLANK, cluster_id=CLUSTER_ID, node_id=int(ME))
    newcomer(identity=stamped).check(Invitation(metadata, ME), plan_id(metadata))
    newcomer(identity=stamped, metadata=metadata).check(Invitation(metadata, ME), plan_id(metadata))
    assert not newcomer(identity=stamped).blank


def test_a_store_belongs_to_one_cluster_and_number_for_good() -> None:
    metadata = joining()
    away = replace(BLANK, cluster_id=b"z" * 16, node_id=int(ME))
    other = replace(BLANK, cluster_id=CLUSTER_ID, node_id=3)
    assert "another cluster already (7a7a" in why_not(newcomer(identity=away), metadata)
    assert "that of node 3 of this cluster" in why_not(newcomer(identity=other), metadata)
    for stamped in (away, other):
        assert "empty its data directory" in why_not(newcomer(identity=stamped), metadata)
    theirs = replace(metadata, cluster_name="theirs")
    assert "another cluster already ('theirs')" in why_not(newcomer(identity=away, metadata=theirs), metadata)


def test_an_invitation_is_kept_whole_and_goes_on_only_in_a_store_it_fits() -> None:
    invitation = Invitation(joining(), ME)
    assert Invitation.decode(invitation.encode()) == invitation
    assert invitation.is_of(BLANK)
    assert invitation.is_of(replace(BLANK, cluster_id=CLUSTER_ID, node_id=int(ME)))
    assert not invitation.is_of(replace(BLANK, cluster_id=CLUSTER_ID, node_id=3))
    assert not invitation.is_of(replace(BLANK, cluster_id=b"z" * 16, node_id=int(ME)))
    for damaged in (b"", invitation.encode()[:-1], b"\xa0"):
        with pytest.raises(ValueError):
            Invitation.decode(damaged)


# -- who a node says it would be


def config(listen: ListenConfig, **node: str) -> Config:
    return Config(node=NodeConfig(name="n", **node), listen=listen)  # type: ignore[arg-type]


def listening(host: str, advertise: str = "", *, port: int = 7412) -> ListenConfig:
    return ListenConfig(Address(host, 7411), Address(host, port), Address(host, 7413), advertise)


def test_a_node_says_how_it_can_be_reached() -> None:
    member = member_of(config(listening("10.0.0.4"), zone="b"))
    assert (member.name, member.host, member.zone) == ("n", "n", "b")
    assert (member.client_address, member.peer_address, member.http_address) == (
        "10.0.0.4:7411",
        "10.0.0.4:7412",
        "10.0.0.4:7413",
    )
    advertised = member_of(config(listening("0.0.0.0", "db4"), host="machine"))
    assert (advertised.host, advertised.peer_address) == ("machine", "db4:7412")


@pytest.mark.parametrize(
    ("listen", "why"),
    [(listening("0.0.0.0"), "listen.advertise"), (listening("db4", port=0), "nobody can know the port")],
)
def test_a_node_that_nobody_could_reach_says_which_setting_to_set(listen: ListenConfig, why: str) -> None:
    with pytest.raises(NotApplied, match=why):
        member_of(config(listen))


# -- what becomes of one that is banned

Change = Callable[[ClusterMetadata], ClusterMetadata]


def advanced(metadata: ClusterMetadata) -> ClusterMetadata:
    return transitions.advance(metadata, plan_id(metadata))


def retreating(metadata: ClusterMetadata) -> ClusterMetadata:
    return transitions.abort(advanced(metadata), plan_id(metadata))


def done(metadata: ClusterMetadata) -> ClusterMetadata:
    return transitions.finish(advanced(metadata), plan_id(metadata))


def aborted(metadata: ClusterMetadata) -> ClusterMetadata:
    return transitions.abort(metadata, plan_id(metadata))


@pytest.mark.parametrize(
    ("installed", "me", "wiped"),
    [
        (lambda m: m, 4, True),
        (retreating, 4, True),
        (advanced, 4, False),
        (done, 4, False),
        (aborted, 4, False),
        (lambda m: m, 1, False),
        (retreating, 3, False),
        (lambda _: cluster(4), 4, False),
    ],
)
def test_a_store_is_emptied_only_when_the_last_it_installed_was_that_it_was_coming(
    installed: Change, me: int, wiped: bool
) -> None:
    assert join_was_given_up(installed(joining()), NodeId(me)) is wiped


def test_nothing_is_emptied_that_never_installed_anything_or_goes_by_the_plan() -> None:
    assert not join_was_given_up(None, ME)
    for change in (Leave(ME), ForceRemove(ME)):
        staged = transitions.stage(cluster(4), change)
        metadata = transitions.commit(staged, propose(staged).id)
        assert not join_was_given_up(metadata, ME)


def test_the_reason_names_who_says_so_and_what_to_do() -> None:
    metadata = cluster(4)
    staged = transitions.stage(metadata, Leave(ME))
    leaving = transitions.commit(staged, propose(staged).id)
    assert "node-3 (node 4) left cluster 'tests' for good, says n1" in sentence(Refusal.BANNED, leaving, ME, "n1")
    assert "was removed from cluster 'tests' for good" in sentence(Refusal.BANNED, metadata, ME, "n1")
    assert "its newest directory back" in sentence(Refusal.ROLLED_BACK, metadata, ME, "n1")
    assert "from a copy of the data directory" in sentence(Refusal.CLONE, metadata, ME, "n1")
    assert "another store" in sentence(Refusal.OTHER_STORE, metadata, ME, "n1")
    for why in (Refusal.ROLLED_BACK, Refusal.CLONE, Refusal.OTHER_STORE):
        assert "leafdb cluster stage replace" in sentence(why, metadata, ME, "n1")
    assert "node 4" in sentence(Refusal.BANNED, None, ME, "n1")
