"""The failure detector judges fairly: obituaries, late helpers, removed members, expulsion, last words."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from leafdb.membership.config import SMALL
from leafdb.membership.effects import Expelled, Send
from leafdb.membership.failure_detector import FailureDetector
from leafdb.membership.member import INCARNATION_MAX, Claim, first_incarnation
from leafdb.membership.messages import Ack, Ask, Gossip, Nack, Ping, Sync
from leafdb.types import Liveness, NodeId
from support.detectors import ME, OTHER, PEER, QUIET, changes, detector, run, sent, standing, suspected


def obituary(node: NodeId = PEER, *, accuser: int = 3) -> Claim:
    return Claim(node, Liveness.DEAD, first_incarnation(1), NodeId(accuser))


def met(machine: FailureDetector, *nodes: int) -> None:
    for node in nodes:
        machine.on_message(NodeId(node), Gossip(standing()), 0.0)


def test_an_obituary_makes_a_suspect_with_the_shortest_time_of_whom_we_know() -> None:
    machine = detector(range(1, 9))
    met(machine, PEER)
    effects = machine.on_message(OTHER, Gossip(standing(), (obituary(),)), 0.1)
    assert changes(effects) == [(PEER, Liveness.SUSPECT)]
    assert machine.suspect_until(PEER) == 0.1 + SMALL.suspicion_s(8)[0]
    again = machine.on_message(NodeId(4), Gossip(standing(), (obituary(accuser=4),)), 0.2)
    assert changes(again) == [], "the time is the suspect's, however many say so"
    machine.check()
    assert changes(machine.on_message(PEER, Ack(standing(first_incarnation(1) + 1), number=1), 0.3)) == [
        (PEER, Liveness.ALIVE)
    ]


def test_an_obituary_of_somebody_never_heard_of_is_believed_at_once() -> None:
    machine = detector()
    assert changes(machine.on_message(OTHER, Gossip(standing(), (obituary(),)), 0.1)) == [(PEER, Liveness.DEAD)]


def test_a_failed_probe_does_not_accuse_an_incarnation_that_has_spoken_since() -> None:
    machine = detector([1, 2, 3, 4])
    met(machine, PEER)
    machine.on_session_lost(PEER, 0.0)
    news = Claim(PEER, Liveness.ALIVE, first_incarnation(1) + 1, OTHER)
    machine.on_message(OTHER, Gossip(standing(), (news,)), 0.3)
    machine.on_time(SMALL.probe_timeout_s)
    machine.on_time(SMALL.probe_interval_s)
    assert machine.liveness(PEER) is Liveness.ALIVE


def test_helpers_asked_late_have_as_long_as_helpers_asked_in_time() -> None:
    machine = detector([1, 2, 3, 4])
    machine.on_session_lost(PEER, 0.0)
    late = SMALL.probe_interval_s - 0.01
    assert sent(machine.on_time(late), Ask)
    machine.on_time(SMALL.probe_interval_s)
    assert machine.liveness(PEER) is Liveness.ALIVE
    machine.on_time(late + SMALL.probe_interval_s - SMALL.probe_timeout_s)
    assert machine.liveness(PEER) is Liveness.SUSPECT


def test_a_helper_that_does_not_know_the_target_or_is_full_says_so_at_once() -> None:
    machine = detector(config=replace(QUIET, relays_max=0))
    for target in (NodeId(77), PEER):
        [(to, nack)] = sent(machine.on_message(OTHER, Ask(standing(), number=5, target=target), 0.1), Nack)
        assert (to, nack) == (OTHER, Nack(nack.standing, nack.claims, number=5))


def test_the_dead_are_not_waited_for_as_accusers() -> None:
    machine = detector([1, 2, 3, 4, 5])
    for node in (4, 5):
        machine.on_message(OTHER, Gossip(standing(), (obituary(NodeId(node)),)), 0.1)
        assert machine.liveness(NodeId(node)) is Liveness.DEAD
    suspected(machine, now=0.2)
    assert machine.suspect_until(PEER) == 0.2 + SMALL.suspicion_s(5)[0], "three are left: nobody can confirm"


def test_a_suspicion_under_way_is_sized_for_the_cluster_as_it_becomes() -> None:
    machine = detector([1, 2, 3, 4])
    suspected(machine)
    assert machine.suspect_until(PEER) == 0.1 + SMALL.suspicion_s(4)[1]
    machine.set_members([ME, PEER, OTHER], 0.2)
    assert machine.suspect_until(PEER) == 0.1 + SMALL.suspicion_s(3)[0]
    machine.set_members([NodeId(node) for node in range(1, 101)], 0.3)
    assert machine.suspect_until(PEER) == 0.1 + SMALL.suspicion_s(100)[1]
    machine.check()


def test_what_a_removed_node_said_does_not_count_and_nobody_waits_for_it() -> None:
    machine = detector(range(1, 7))
    gone = NodeId(6)
    for accuser in (3, 4, 6):
        suspected(machine, accuser=accuser)
    assert machine.suspect_until(PEER) == 0.1 + SMALL.suspicion_s(6)[0]
    machine.set_members([NodeId(node) for node in range(1, 6)], 0.2)
    until = machine.suspect_until(PEER)
    assert until is not None
    assert until > 0.1 + SMALL.suspicion_s(5)[0], "one of three accusers is gone"
    passed_on = Claim(OTHER, Liveness.SUSPECT, first_incarnation(1), gone)
    assert changes(machine.on_message(NodeId(4), Gossip(standing(), (passed_on,)), 0.3)) == []
    assert changes(machine.on_message(gone, Gossip(standing(), (obituary(OTHER),)), 0.3)) == []
    back = Claim(gone, Liveness.ALIVE, 9 << 32, gone)
    assert changes(machine.on_message(NodeId(4), Gossip(standing(), (back,)), 0.3)) == []
    assert machine.liveness(gone) is None
    machine.check()


def test_helpers_origins_and_targets_that_are_removed_leave_nothing_behind() -> None:
    machine = detector(range(1, 6))
    machine.on_session_lost(PEER, 0.0)
    asks = sent(machine.on_time(SMALL.probe_timeout_s), Ask)
    assert [to for to, _ in asks] != []
    machine.on_message(NodeId(4), Ask(standing(), number=9, target=NodeId(5)), 0.25)
    machine.set_members([ME, PEER, OTHER], 0.3)
    machine.check()
    effects = [each for _, each in run(machine, 0.5)]
    assert {each.to for each in effects if isinstance(each, Send)} <= {PEER, OTHER}
    assert machine.health.score == 1, "of the helpers that stayed one did not answer"


def test_whoever_is_no_member_any_more_is_told_once_and_is_silent_but_for_its_acks() -> None:
    machine = detector()
    suspected(machine)
    assert Expelled() in machine.set_members([PEER, OTHER], 0.2)
    assert machine.deadline() == float("inf")
    assert machine.states() == ()
    assert Expelled() not in machine.set_members([PEER, OTHER], 0.3)
    [(to, ack)] = sent(machine.on_message(PEER, Ping(standing(), number=4), 0.4), Ack)
    assert (to, ack.claims) == (PEER, ())
    machine.check()


def test_a_node_that_was_never_a_member_is_not_told_that_it_was_expelled() -> None:
    machine = FailureDetector(QUIET, ME, boot=1, now=0.0, rng=Random(5))
    assert machine.set_members([PEER, OTHER], 0.0) == ()
    assert machine.deadline() == float("inf")
    assert Expelled() not in machine.set_members([ME, PEER, OTHER], 0.1)
    assert machine.deadline() < float("inf")


def test_a_joiner_whose_sessions_were_up_before_it_was_a_member_still_asks_for_the_table() -> None:
    machine = FailureDetector(QUIET, ME, boot=1, now=0.0, rng=Random(5))
    assert sent(machine.on_session_established(PEER, 0.0), Sync) == []
    machine.set_members([ME, PEER, OTHER], 0.1)
    assert [to for to, _ in sent(machine.on_message(PEER, Ping(standing(), number=1), 0.2), Sync)] == [PEER]
    assert sent(machine.on_message(OTHER, Ping(standing(), number=1), 0.2), Sync) == []


def test_an_unwell_node_with_suspects_wakes_often_enough_to_notice_that_it_slept() -> None:
    machine = detector(range(1, 9))
    machine.health.worse(7)
    machine.on_time(machine.deadline())
    suspected(machine, now=1.0)
    assert machine.deadline() <= 1.0 + SMALL.stall_s


def test_the_greatest_incarnation_cannot_be_outdone_and_breaks_nothing() -> None:
    machine = detector()
    accusation = Claim(ME, Liveness.SUSPECT, INCARNATION_MAX, PEER)
    machine.on_message(OTHER, Gossip(standing(), (accusation,)), 0.1)
    assert machine.incarnation == first_incarnation(1)


def test_whoever_repeats_an_old_accusation_is_answered_at_once() -> None:
    machine = detector(boot=2)
    old = Claim(ME, Liveness.SUSPECT, first_incarnation(1), PEER)
    suspected(machine)
    for message in (Ack(standing(), (old,), number=77), Gossip(standing(), (old,))):
        [(to, answer)] = sent(machine.on_message(PEER, message, 0.1), Gossip)
        assert to == PEER
        assert answer.standing.incarnation == machine.incarnation == first_incarnation(2)
        assert [claim.node for claim in answer.claims] == [ME], "an accusation in it would be answered in turn"
    assert sent(machine.on_message(PEER, Gossip(standing()), 0.1), Gossip) == []


def test_a_suspect_is_asked_several_times_before_the_verdict_however_unwell_we_are() -> None:
    machine = detector(range(1, 9))
    machine.health.worse(7)
    machine.on_time(machine.deadline())
    suspected(machine, now=1.0)
    machine.on_message(OTHER, Gossip(standing(), (obituary(),)), 1.0)
    verdict = machine.suspect_until(PEER)
    assert verdict is not None
    happened = run(machine, verdict)
    asked = [when for when, each in happened if isinstance(each, Send) and each.to == PEER if when > verdict - 2.0]
    assert len(asked) >= 3
    assert machine.liveness(PEER) is Liveness.DEAD
