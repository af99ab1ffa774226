"""docs/formats/wire.md shows the bytes that are sent, and names every type."""

from __future__ import annotations

import re
from pathlib import Path

from leafdb.explanation import Explanation, Policy, Replica, Status
from leafdb.model.key import encode_key
from leafdb.wire import explanations
from leafdb.wire.frame import encode_frame
from leafdb.wire.hello import encode_client_hello
from leafdb.wire.registry import KNOWN_TYPES, MessageType
from leafdb.wire.requests import FLAG_BLIND, FLAG_SLOPPY, PutRequest, encode_get_reply, encode_put, encode_put_reply

PAGE = (Path(__file__).parents[3] / "docs" / "formats" / "wire.md").read_text(encoding="utf-8")


def test_the_examples_are_what_is_sent() -> None:
    blocks = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    shown = ["".join(re.sub(r"  +.*", "", line).replace(" ", "") for line in block.splitlines()) for block in blocks]
    put = PutRequest(
        256, 1, 5, 5000, FLAG_SLOPPY | FLAG_BLIND, 0, 0, 0, 0, bytes(range(16)), encode_key("alice"), b"", b"tea"
    )
    missing = Replica("a", "primary", Status.ABSENT, cause="first", asked_ms=0.0, answered_ms=0.25, counted=True)
    policy = Policy(n=1, r=1, sloppy=True)
    told = Explanation("get", True, "carts", "a", (), "", 5, 3, 17, policy, None, (missing,), 0, None, 0.5, ())
    explained = explanations.join(explanations.encode(told), encode_get_reply(5, b"\x01\0\0", []))
    sent = [
        encode_frame(MessageType.HELLO, 0, encode_client_hello("leafdb-python/0.1.0")),
        encode_frame(MessageType.PUT, 7, encode_put(put)),
        encode_frame(MessageType.PUT_REPLY, 7, encode_put_reply(5, 2, 2, b"\x01\0\0")),
        encode_frame(MessageType.GET_EXPLAINED, 7, explained),
    ]
    assert shown == [frame.hex() for frame in sent]


def test_every_number_is_in_the_table() -> None:
    table = PAGE[PAGE.index("## Types") : PAGE.index("## Handshake of a client")]
    rows = [line.split("|")[1] for line in table.splitlines() if re.match(r"\| \d\d", line)]
    assert {int(number, 16) for row in rows for number in row.split()} == KNOWN_TYPES
