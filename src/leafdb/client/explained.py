"""Explained reads and writes of one key: the plain calls with a flag, and an explanation in front of the same reply."""

from __future__ import annotations

from typing import TypeVar

from leafdb.client.call import Begun
from leafdb.client.catalog import BucketRef, ReadPlan, WritePlan, in_bucket
from leafdb.client.effects import Exchange, Operation
from leafdb.client.kv import Form, Get, Prepared, Put
from leafdb.client.results import Explained, Written
from leafdb.errors import LeafdbError, Outcome, ProtocolError, ServerBug
from leafdb.explanation import Explanation
from leafdb.wire import explanations
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_EXPLAIN, GetReply

A = TypeVar("A")


class GetExplained(Get[Explained[A]]):
    """A read of one key that tells how it was answered; `form` makes of the reply what the handle shows."""

    __slots__ = ("_explanation", "_shown")
    reply_type = MessageType.GET_EXPLAINED

    def __init__(self, ref: BucketRef, encoded_key: bytes, plan: ReadPlan, form: Form[A]) -> None:
        super().__init__(ref, encoded_key, plan._replace(flags=plan.flags | FLAG_EXPLAIN), self._with_explanation)
        self._shown = form
        self._explanation: Explanation | None = None

    def finish(self, frame: Frame) -> Explained[A]:
        """What a GET_EXPLAINED shows. Raises DataError, which is explained as well."""
        self._explanation, plain = _parted(frame, "none")
        try:
            return super().finish(plain)
        except LeafdbError as error:
            error.explanation = self._explanation
            raise

    def _with_explanation(self, whose: bytes, reply: GetReply) -> Explained[A]:
        assert self._explanation is not None
        return Explained(self._shown(whose, reply), self._explanation)


class _FlaggedPut(Put):
    __slots__ = ()
    reply_type = MessageType.PUT_EXPLAINED


class PutExplained:
    """A write of one key that tells how it was answered. Implements call.KeyCall."""

    __slots__ = ("_put",)
    reply_type = MessageType.PUT_EXPLAINED

    def __init__(self, ref: BucketRef, prepared: Prepared, plan: WritePlan) -> None:
        self._put = _FlaggedPut(ref, prepared, plan._replace(flags=plan.flags | FLAG_EXPLAIN))

    def begin(self) -> Exchange | None:
        """The first exchange, when nothing has to be fetched before it."""
        return self._put.begin()

    def finish(self, frame: Frame) -> Explained[Written]:
        """What a PUT_EXPLAINED says."""
        explanation, plain = _parted(frame, "unknown")
        return Explained(self._put.finish(plain), explanation)

    def steps(self, begun: Begun | None = None) -> Operation[Explained[Written]]:
        """The whole write."""
        return self.finish((yield from in_bucket(self._put, begun)))


def _parted(frame: Frame, outcome: Outcome) -> tuple[Explanation, Frame]:
    """The explanation, and the frame as it would have come without one."""
    try:
        explanation, body = explanations.split(frame.body)
        return explanations.decode(explanation), Frame(frame.type, frame.request_id, body)
    except ProtocolError as error:
        failure = ServerBug(str(error), request_id=frame.request_id)
        failure.outcome = outcome
        raise failure from None
