"""The failure detector stepped by hand: each of SWIM's and Lifeguard's rules by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random

from leafdb.membership.config import LARGE, SMALL, MembershipConfig, profile_for
from leafdb.membership.effects import Effect, Expelled, MemberChanged, PeerEpoch, Send
from leafdb.membership.failure_detector import FailureDetector
from leafdb.membership.member import INCARNATION_MAX, Claim, first_incarnation
from leafdb.membership.messages import Ack, AnyMessage, Ask, Gossip, Nack, Ping, Standing, Sync
from leafdb.types import Epoch, Liveness, NodeId

ME, PEER, OTHER = NodeId(1), NodeId(2), NodeId(3)
QUIET = replace(SMALL, sync_interval_s=1e6)


def detector(nodes: Iterable[int] = (1, 2, 3), *, config: MembershipConfig = QUIET, boot: int = 1) -> FailureDetector:
    machine = FailureDetector(config, ME, boot=boot, now=0.0, rng=Random(5))
    machine.set_members([NodeId(node) for node in nodes], 0.0)
    return machine


def standing(incarnation: int = first_incarnation(1), epoch: int = 0, digest: bytes = b"") -> Standing:
    return Standing(incarnation, Epoch(epoch), digest)


def sent(effects: Iterable[Effect], kind: type[AnyMessage]) -> list[tuple[NodeId, AnyMessage]]:
    return [(each.to, each.message) for each in effects if isinstance(each, Send) and isinstance(each.message, kind)]


def changes(effects: Iterable[Effect]) -> list[tuple[NodeId, Liveness]]:
    return [(each.node, each.liveness) for each in effects if isinstance(each, MemberChanged)]


def run(machine: FailureDetector, until: float) -> list[tuple[float, Effect]]:
    """Let time pass and nobody answer."""
    happened: list[tuple[float, Effect]] = []
    while machine.deadline() <= until:
        now = machine.deadline()
        happened += [(now, effect) for effect in machine.on_time(now)]
        machine.check()
    return happened


def suspected(machine: FailureDetector, node: NodeId = PEER, *, accuser: int = 3, now: float = 0.1) -> Claim:
    claim = Claim(node, Liveness.SUSPECT, first_incarnation(1), NodeId(accuser))
    machine.on_message(OTHER, Gossip(standing(), (claim,)), now)
    assert machine.liveness(node) is Liveness.SUSPECT
    return claim


def test_profiles_keep_their_formulas() -> None:
    for config in (SMALL, LARGE):
        config.check()
        assert config.nack_after_s + config.probe_timeout_s < config.probe_interval_s
    assert profile_for(3) is SMALL
    assert profile_for(100) is LARGE
    assert SMALL.suspicion_s(3) == (2.0, 12.0)
    assert LARGE.suspicion_s(100) == (8.0, 48.0)
    assert [SMALL.confirmations_wanted(nodes) for nodes in (1, 3, 4, 50)] == [0, 0, 2, 2]


def test_alone_it_has_nothing_to_do() -> None:
    assert detector([1]).deadline() == float("inf")


def test_silence_leads_to_helpers_then_suspicion_then_death() -> None:
    machine = detector()
    machine.on_session_lost(PEER, 0.0)
    happened = run(machine, 4.0)
    asked = [(when, each.to) for when, each in happened if isinstance(each, Send) and isinstance(each.message, Ask)]
    assert asked[0] == (SMALL.probe_timeout_s, OTHER)
    told = [(when, each) for when, each in happened if isinstance(each, MemberChanged) and each.node == PEER]
    assert [each.liveness for _, each in told] == [Liveness.SUSPECT, Liveness.DEAD]
    assert [when for when, _ in told] == [SMALL.probe_interval_s, SMALL.probe_interval_s + SMALL.suspicion_s(3)[0]]


def test_ack_ends_the_probe_and_heals_the_score() -> None:
    machine = detector([1, 2])
    machine.health.worse(3)
    [(to, ping)] = sent(machine.on_session_established(PEER, 0.0), Ping)
    assert to == PEER
    assert isinstance(ping, Ping)
    machine.on_message(PEER, Ack(standing(), number=ping.number), 0.01)
    assert machine.health.score == 2
    assert machine.liveness(PEER) is Liveness.ALIVE
    machine.check()


def test_ack_of_a_stranger_or_with_a_wrong_number_does_not_end_the_probe() -> None:
    machine = detector()
    [(_, ping)] = sent(machine.on_session_established(PEER, 0.0), Ping)
    assert isinstance(ping, Ping)
    machine.health.worse(3)
    machine.on_message(OTHER, Ack(standing(), number=ping.number), 0.01)
    machine.on_message(NodeId(9), Ack(standing(), number=ping.number), 0.01)
    machine.on_message(PEER, Ack(standing(), number=ping.number + 7), 0.01)
    assert machine.health.score == 3


def test_accused_node_refutes_in_the_very_answer() -> None:
    machine = detector(boot=4)
    mine = machine.incarnation
    accusation = Claim(ME, Liveness.SUSPECT, mine, PEER)
    [(to, ack)] = sent(machine.on_message(PEER, Ping(standing(), (accusation,), number=8), 0.1), Ack)
    assert to == PEER
    assert ack.standing.incarnation == mine + 1
    assert Claim(ME, Liveness.ALIVE, mine + 1, ME) in ack.claims
    assert machine.health.score == 1
    machine.on_message(PEER, Gossip(standing(), (accusation,)), 0.1)
    assert machine.incarnation == mine + 1, "an old accusation is answered already"


def test_every_message_to_a_suspect_carries_the_accusation() -> None:
    machine = detector()
    claim = suspected(machine)
    effects = machine.on_message(PEER, Ping(standing(), number=1), 0.2)
    [(_, ack)] = sent(effects, Ack)
    assert ack.claims[0] == claim


def test_refutation_clears_the_suspect_and_stops_its_timer() -> None:
    machine = detector()
    suspected(machine)
    effects = machine.on_message(PEER, Ack(standing(first_incarnation(1) + 1), number=99), 0.3)
    assert changes(effects) == [(PEER, Liveness.ALIVE)]
    machine.check()


def test_restarted_node_outranks_its_obituary_with_its_first_word() -> None:
    machine = detector()
    machine.on_message(OTHER, Gossip(standing(), (Claim(PEER, Liveness.DEAD, first_incarnation(1) + 5, OTHER),)), 0.1)
    assert machine.liveness(PEER) is Liveness.DEAD
    effects = machine.on_message(PEER, Ping(standing(first_incarnation(2)), number=1), 0.2)
    assert changes(effects) == [(PEER, Liveness.ALIVE)]


def test_further_accusers_shorten_the_timer_and_repeats_do_not() -> None:
    machine = detector(range(1, 9))
    until: list[float | None] = []
    for accuser in (3, 3, 4, 5, 6):
        suspected(machine, accuser=accuser)
        until.append(machine.suspect_until(PEER))
    least, most = SMALL.suspicion_s(8)
    assert until[0] == until[1] == 0.1 + most
    assert until[3] == until[4] == 0.1 + least
    assert until[2] is not None
    assert 0.1 + least < until[2] < 0.1 + most
    assert machine.suspect_until(OTHER) is None


def test_nobody_is_convicted_right_after_an_own_stall_and_suspects_are_asked_first() -> None:
    machine = detector()
    suspected(machine)
    effects = machine.on_time(60.0)
    assert changes(effects) == []
    assert PEER in [to for to, _ in sent(effects, Ping)]
    assert machine.health.score >= 1
    answer = machine.on_message(PEER, Ack(standing(first_incarnation(1) + 1), number=1), 60.1)
    assert changes(answer) == [(PEER, Liveness.ALIVE)]


def test_stall_only_postpones_a_true_verdict() -> None:
    machine = detector()
    suspected(machine)
    machine.on_time(60.0)
    happened = run(machine, 62.0)
    [(when, _)] = [(when, each) for when, each in happened if each == MemberChanged(PEER, Liveness.DEAD)]
    assert when >= 60.0 + SMALL.probe_interval_s


def test_failed_probe_blames_ourselves_only_for_helpers_that_said_nothing() -> None:
    for helpers_answer, score in ((True, 0), (False, 2)):
        machine = detector([1, 2, 3, 4])
        machine.on_session_lost(PEER, 0.0)
        asks = sent(machine.on_time(SMALL.probe_timeout_s), Ask)
        assert sorted(to for to, _ in asks) == [3, 4]
        for helper, ask in asks:
            assert isinstance(ask, Ask)
            if helpers_answer:
                machine.on_message(helper, Nack(standing(), number=ask.number), 0.4)
        machine.on_time(SMALL.probe_interval_s)
        assert machine.liveness(PEER) is Liveness.SUSPECT
        assert machine.health.score == score


def test_unwell_node_stretches_its_own_timeouts() -> None:
    machine = detector()
    machine.health.worse(3)
    machine.on_session_lost(PEER, 0.0)
    happened = run(machine, 3.0)
    asked = [when for when, each in happened if isinstance(each, Send) and isinstance(each.message, Ask)]
    assert asked[0] == 4 * SMALL.probe_timeout_s


def test_helper_relays_the_ack_with_the_news_or_says_not_yet() -> None:
    machine = detector()
    [(to, ping)] = sent(machine.on_message(OTHER, Ask(standing(), number=40, target=PEER), 0.0), Ping)
    assert to == PEER
    assert isinstance(ping, Ping)
    [(to, ack)] = sent(machine.on_message(PEER, Ack(standing(77 << 32), number=ping.number), 0.1), Ack)
    assert isinstance(ack, Ack)
    assert (to, ack.number) == (OTHER, 40)
    assert Claim(PEER, Liveness.ALIVE, 77 << 32, ME) in ack.claims

    machine.on_message(OTHER, Ask(standing(), number=41, target=PEER), 0.1)
    sends = [each for _, each in run(machine, 2.0) if isinstance(each, Send)]
    assert [(each.to, each.message.number) for each in sends if isinstance(each.message, Nack)] == [(OTHER, 41)]


def test_relays_are_bounded_and_forgotten() -> None:
    machine = detector(config=replace(QUIET, relays_max=2))

    def pings() -> int:
        asks = [Ask(standing(), number=number, target=PEER) for number in range(5)]
        return sum(len(sent(machine.on_message(OTHER, ask, machine.deadline()), Ping)) for ask in asks)

    assert pings() == 2
    run(machine, 5.0)
    assert pings() == 2
    machine.check()


def test_removed_member_is_forgotten_and_its_gossip_ignored() -> None:
    machine = detector()
    suspected(machine)
    machine.on_session_lost(PEER, 0.1)
    machine.set_members([ME, OTHER], 0.2)
    machine.check()
    assert machine.liveness(PEER) is None
    effects = machine.on_message(OTHER, Gossip(standing(), (Claim(PEER, Liveness.DEAD, 9 << 32, OTHER),)), 0.3)
    assert changes(effects) == []
    assert [each.node for each in machine.states()] == [OTHER]


def test_stranger_gets_its_ack_and_is_not_believed() -> None:
    machine = detector()
    claim = Claim(PEER, Liveness.DEAD, 9 << 32, NodeId(9))
    effects = machine.on_message(NodeId(9), Ping(standing(epoch=5, digest=b"x"), (claim,), number=3), 0.1)
    assert effects[0] == PeerEpoch(NodeId(9), Epoch(5), b"x")
    assert [to for to, _ in sent(effects, Ack)] == [9]
    assert machine.liveness(PEER) is Liveness.ALIVE


def test_peer_epoch_is_told_when_it_changes_and_with_each_probe_while_not_ours() -> None:
    machine = detector()
    machine.announce(Epoch(2), b"two")
    for number, (epoch, digest, told) in enumerate(
        [(2, b"two", True), (2, b"two", False), (3, b"three", True), (3, b"three", True), (2, b"two", True)]
    ):
        effects = machine.on_message(PEER, Ping(standing(epoch=epoch, digest=digest), number=number), 0.1)
        assert (PeerEpoch(PEER, Epoch(epoch), digest) in effects) is told
    machine.on_message(PEER, Gossip(standing(epoch=3, digest=b"three")), 0.1)
    assert PeerEpoch(PEER, Epoch(3), b"three") not in machine.on_message(
        PEER, Gossip(standing(epoch=3, digest=b"three")), 0.1
    )
    assert machine.peer_epoch(PEER) == (3, b"three")


def test_first_session_asks_for_the_peers_table_and_sync_answers_with_ours() -> None:
    machine = detector()
    assert len(sent(machine.on_session_established(PEER, 0.0), Sync)) == 1
    assert sent(machine.on_session_established(OTHER, 0.0), Sync) == []
    [(to, table)] = sent(machine.on_message(PEER, Sync(standing(), answer=True), 0.1), Sync)
    assert to == PEER
    assert {claim.node for claim in table.claims} == {PEER, OTHER}
    assert sent(machine.on_message(PEER, Sync(standing(), answer=False), 0.1), Sync) == []


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
