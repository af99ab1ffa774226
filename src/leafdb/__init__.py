"""leafdb: a leaderless distributed key-value database in typed Python.

    import leafdb

    with leafdb.connect("leafdb://127.0.0.1:7411") as db:
        db.create_bucket("carts")
        db.bucket("carts").put("alice", b"tea", after=leafdb.BLIND)

Every public name is here and is loaded when it is first used: `import leafdb` alone costs next to nothing, a program
that only uses the synchronous client never loads an event loop, and the server's processes never load the client.
"""

from __future__ import annotations

TYPE_CHECKING = False
"""As typing's own, without the ten milliseconds of importing it."""

if TYPE_CHECKING:
    from leafdb.client.async_bucket import AsyncBucket, AsyncLwwBucket, AsyncSiblingBucket
    from leafdb.client.async_client import AsyncClient
    from leafdb.client.async_scan import AsyncRange, AsyncScan
    from leafdb.client.auth import Auth, Scram, Token
    from leafdb.client.codecs import CBOR, JSON, Codec, Raw, Text
    from leafdb.client.connect import connect, connect_async
    from leafdb.client.context import BLIND, Blind, Context
    from leafdb.client.info import BucketInfo, Pong, Status
    from leafdb.client.model_codecs import Msgspec, Pydantic
    from leafdb.client.results import (
        Answer,
        Conflict,
        Explained,
        Failed,
        Found,
        Item,
        Merge,
        Missing,
        Outcome,
        Put,
        Sibling,
        Written,
    )
    from leafdb.client.session_token import SessionToken
    from leafdb.client.sync_bucket import Bucket, LwwBucket, SiblingBucket
    from leafdb.client.sync_client import Client
    from leafdb.client.sync_scan import Range, Scan
    from leafdb.client.tls import TLS
    from leafdb.embedded import open, open_async
    from leafdb.errors import (
        ClientMisuse,
        ConfigError,
        ConnectFailed,
        ContextMismatch,
        DataError,
        DeadlineExceeded,
        LeafdbError,
        NotApplied,
        NotEnoughReplicas,
        OpenFailed,
        OutcomeUnknown,
        Overloaded,
        Reason,
        ServerBug,
    )
    from leafdb.explanation import Explanation
    from leafdb.types import Key

_HOMES = {
    "leafdb.client.async_bucket": ("AsyncBucket", "AsyncLwwBucket", "AsyncSiblingBucket"),
    "leafdb.client.async_client": ("AsyncClient",),
    "leafdb.client.async_scan": ("AsyncRange", "AsyncScan"),
    "leafdb.client.auth": ("Auth", "Scram", "Token"),
    "leafdb.client.codecs": ("CBOR", "JSON", "Codec", "Raw", "Text"),
    "leafdb.client.connect": ("connect", "connect_async"),
    "leafdb.client.context": ("BLIND", "Blind", "Context"),
    "leafdb.client.info": ("BucketInfo", "Pong", "Status"),
    "leafdb.client.model_codecs": ("Msgspec", "Pydantic"),
    "leafdb.client.results": (
        "Answer", "Conflict", "Explained", "Failed", "Found", "Item", "Merge", "Missing", "Outcome", "Put", "Sibling",
        "Written",
    ),
    "leafdb.client.session_token": ("SessionToken",),
    "leafdb.client.sync_bucket": ("Bucket", "LwwBucket", "SiblingBucket"),
    "leafdb.client.sync_client": ("Client",),
    "leafdb.client.sync_scan": ("Range", "Scan"),
    "leafdb.client.tls": ("TLS",),
    "leafdb.embedded": ("open", "open_async"),
    "leafdb.errors": (
        "ClientMisuse", "ConfigError", "ConnectFailed", "ContextMismatch", "DataError", "DeadlineExceeded",
        "LeafdbError", "NotApplied", "NotEnoughReplicas", "OpenFailed", "OutcomeUnknown", "Overloaded", "Reason",
        "ServerBug",
    ),
    "leafdb.explanation": ("Explanation",),
    "leafdb.types": ("Key",),
}  # fmt: skip

__version__ = "0.1.0"

__all__ = [
    "BLIND",
    "CBOR",
    "JSON",
    "TLS",
    "Answer",
    "AsyncBucket",
    "AsyncClient",
    "AsyncLwwBucket",
    "AsyncRange",
    "AsyncScan",
    "AsyncSiblingBucket",
    "Auth",
    "Blind",
    "Bucket",
    "BucketInfo",
    "Client",
    "ClientMisuse",
    "Codec",
    "ConfigError",
    "Conflict",
    "ConnectFailed",
    "Context",
    "ContextMismatch",
    "DataError",
    "DeadlineExceeded",
    "Explained",
    "Explanation",
    "Failed",
    "Found",
    "Item",
    "Key",
    "LeafdbError",
    "LwwBucket",
    "Merge",
    "Missing",
    "Msgspec",
    "NotApplied",
    "NotEnoughReplicas",
    "OpenFailed",
    "Outcome",
    "OutcomeUnknown",
    "Overloaded",
    "Pong",
    "Put",
    "Pydantic",
    "Range",
    "Raw",
    "Reason",
    "Scan",
    "Scram",
    "ServerBug",
    "SessionToken",
    "Sibling",
    "SiblingBucket",
    "Status",
    "Text",
    "Token",
    "Written",
    "connect",
    "connect_async",
    "open",
    "open_async",
]

if not TYPE_CHECKING:

    def __getattr__(name):
        """Load the module a public name lives in, and keep the name."""
        for home, names in _HOMES.items():
            if name in names:
                from importlib import import_module

                value = globals()[name] = getattr(import_module(home), name)
                return value
        raise AttributeError(f"module 'leafdb' has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
