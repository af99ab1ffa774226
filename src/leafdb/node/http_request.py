"""The little of HTTP/1 a health page needs, without input or output: bytes to a request, an answer to bytes.

Only GET without a body. Everything a stranger may send is either a request, "not complete yet" or one of a few typed
refusals; nothing here keeps more than HEAD_BYTES_MAX of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

HEAD_BYTES_MAX: Final = 8 * 1024
REQUEST_LINE: Final = re.compile(rb"([A-Za-z]{1,16}) ([!-~]{1,4096}) HTTP/([0-9])\.([0-9])")
HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\x00]*)")
FIRST_LINE_SO_FAR: Final = re.compile(rb"[ -~]*\r?\Z")


class Refused(Exception):
    """What came is not a request this server takes. The connection closes after the answer."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Request:
    """One GET."""

    path: str
    query: str
    keep_alive: bool


def split_head(buffer: bytes | bytearray) -> tuple[bytes, int] | None:
    """The head of the first request in `buffer` and where the next one starts; None while it is incomplete.

    Raises Refused as soon as it is plain that no acceptable head will come of it.
    """
    end = buffer.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
    if end >= 0:
        return bytes(buffer[:end]), end + 4
    if len(buffer) >= HEAD_BYTES_MAX:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head may have {HEAD_BYTES_MAX} bytes")
    first, newline, _ = bytes(buffer[:HEAD_BYTES_MAX]).partition(b"\n")
    if not FIRST_LINE_SO_FAR.match(first) or (newline and not REQUEST_LINE.fullmatch(first.removesuffix(b"\r"))):
        raise Refused(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
    return None


def parse_head(head: bytes) -> Request:
    """The request a head describes; Refused when it is none, or not one for us."""
    first, *lines = head.split(b"\r\n")
    match = REQUEST_LINE.fullmatch(first)
    if match is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.0 or HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        header = HEADER.fullmatch(line)
        if header is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "a header is malformed")
        headers[header[1].decode("ascii").lower()] = header[2].decode("latin-1").strip()
    if method != b"GET":
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is answered here")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise Refused(HTTPStatus.BAD_REQUEST, "a GET here has no body")
    path, _, query = target.decode("ascii").partition("?")
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (minor != b"0" or "keep-alive" in connection)
    return Request(path, query.partition("#")[0], keep_alive)


def render(
    status: HTTPStatus, body: bytes, content_type: str, *, keep_alive: bool, headers: Mapping[str, str] | None = None
) -> bytes:
    """An answer as it goes out."""
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def refusal(refused: Refused) -> bytes:
    """The answer to what could not be taken."""
    headers = {"Allow": "GET"} if refused.status is HTTPStatus.METHOD_NOT_ALLOWED else {}
    body = f"{refused.detail}\n".encode()
    return render(refused.status, body, "text/plain; charset=utf-8", keep_alive=False, headers=headers)
