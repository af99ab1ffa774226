"""Drives membership/: probes go out on the control lane, verdicts go to the view, news of newer metadata to the
register.

There is no task: the machine's next deadline is an entry of the timing wheel. Suspicion never moves data; a verdict
only decides whom requests are sent to.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import assert_never

from leafdb.codec import cbor
from leafdb.errors import ProtocolError
from leafdb.membership.config import profile_for
from leafdb.membership.effects import Effect, Expelled, MemberChanged, PeerEpoch, Send
from leafdb.membership.failure_detector import FailureDetector
from leafdb.membership.messages import from_wire
from leafdb.node.logs import Log
from leafdb.node.timers import TimingWheel
from leafdb.node.view import ClusterView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import Liveness, NodeId
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType

log: Log = Log("gossiper")


class Gossiper:
    """The failure detector of this node. `send` puts a frame on a peer's control lane; `behind` fetches from a peer;
    `expelled` is told when metadata in force do not name this node any more."""

    def __init__(
        self,
        *,
        view: ClusterView,
        wheel: TimingWheel,
        now: Callable[[], float],
        rng: random.Random,
        boot: int,
        send: Callable[[NodeId, bytes], bool],
        behind: Callable[[NodeId], None],
        expelled: Callable[[], None],
    ) -> None:
        self._view = view
        self._wheel = wheel
        self._now = now
        self._rng = rng
        self._boot = boot
        self._send = send
        self._behind = behind
        self._expelled = expelled
        self._machine: FailureDetector | None = None
        self.slot = 0
        view.on_install.append(self._installed)

    def _installed(self, metadata: ClusterMetadata) -> None:
        """The membership changed, or is known for the first time."""
        now = self._now()
        if self._machine is None:
            profile = profile_for(len(metadata.members))
            self._machine = FailureDetector(profile, self._view.self_id, boot=self._boot, now=now, rng=self._rng)
        self._machine.announce(metadata.epoch, metadata.digest())
        self._perform(self._machine.set_members(metadata.members, now))

    # -- inputs

    def on_message(self, node: NodeId, body: bytes) -> None:
        """A MEMBERSHIP frame of a peer."""
        try:
            message = from_wire(cbor.loads(body))
        except ValueError as error:
            raise ProtocolError(f"a malformed membership message: {error}") from None
        if self._machine is not None:
            self._perform(self._machine.on_message(node, message, self._now()))

    def on_session_up(self, node: NodeId) -> None:
        """The control lane to a peer is up."""
        if self._machine is not None:
            self._perform(self._machine.on_session_established(node, self._now()))

    def on_session_down(self, node: NodeId) -> None:
        """The control lane to a peer broke: worth a probe, not a verdict."""
        if self._machine is not None:
            self._perform(self._machine.on_session_lost(node, self._now()))

    def expired(self) -> None:
        """The machine's deadline."""
        if self._machine is not None:
            self._perform(self._machine.on_time(self._now()))

    def peer_epochs(self) -> dict[NodeId, int]:
        """The newest epoch each peer has shown."""
        found: dict[NodeId, int] = {}
        if self._machine is not None and self._view.metadata is not None:
            for node in self._view.metadata.members:
                known = self._machine.peer_epoch(node)
                if known is not None:
                    found[node] = int(known[0])
        return found

    # -- effects

    def _perform(self, effects: tuple[Effect, ...]) -> None:
        assert self._machine is not None
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    body = cbor.dumps(message.to_wire())
                    self._send(to, encode_frame(MessageType.MEMBERSHIP, 0, body))
                case MemberChanged(node=node, liveness=liveness):
                    self._changed(node, liveness)
                case PeerEpoch(node=node, epoch=epoch, digest=digest):
                    self._compare(node, int(epoch), digest)
                case Expelled():
                    self._expelled()
                case _:
                    assert_never(effect)
        self._wheel.remove(self)
        self._wheel.add(self, self._machine.deadline())

    def _changed(self, node: NodeId, liveness: Liveness) -> None:
        say = log.info if liveness is Liveness.ALIVE else log.warning
        say("liveness changed", member=self._view.name_of(node), now=liveness.value)
        self._view.judged(node, liveness)

    def _compare(self, node: NodeId, epoch: int, digest: bytes) -> None:
        metadata = self._view.metadata
        if metadata is None or epoch > metadata.epoch:
            self._behind(node)
        elif epoch == metadata.epoch and digest != metadata.digest():
            log.error("a split history: other metadata of the same epoch", member=self._view.name_of(node), epoch=epoch)
