"""The failure detector stepped by hand: each of SWIM's and Lifeguard's rules by name."""

from __future__ import annotations

from dataclasses import replace

from leafdb.membership.config import LARGE, SMALL, profile_for
from leafdb.membership.effects import MemberChanged, PeerEpoch, Send
from leafdb.membership.member import Claim, first_incarnation
from leafdb.membership.messages import Ack, Ask, Gossip, Nack, Ping, Sync
from leafdb.types import Epoch, Liveness, NodeId
from support.detectors import ME, OTHER, PEER, QUIET, changes, detector, run, sent, standing, suspected


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
