"""The HTTP pages of nodes, read from here: each in a thread, so that one that is silent does not hold up the rest."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Final

from leafdb.config import parse_address

PAGE_S: Final = 2.0
PAGE_BYTES_MAX: Final = 4 << 20
READERS: Final = 16


class PageFailed(Exception):
    """A page could not be read; the message says why."""


def read_page(address: str, path: str, timeout_s: float = PAGE_S) -> tuple[int, str]:
    """Status and text of a page. Raises PageFailed."""
    try:
        host, port = parse_address(address)
        connection = HTTPConnection(host, port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(PAGE_BYTES_MAX).decode("utf-8", "replace")
        finally:
            connection.close()
    except OSError as error:
        raise PageFailed(str(error.strerror or error or "no answer")) from None
    except (HTTPException, ValueError) as error:
        raise PageFailed(f"no page: {error}") from None


def read_pages(addresses: Mapping[str, str], path: str) -> tuple[dict[str, str], dict[str, str]]:
    """A page of each node, by name: the texts of those that gave it, and why the others did not."""

    def one(address: str) -> tuple[str, str]:
        try:
            status, text = read_page(address, path)
        except PageFailed as failed:
            return "", f"{address}: {failed}"
        return (text, "") if status == 200 else ("", f"{address}{path}: {status}")

    if not addresses:
        return {}, {}
    with ThreadPoolExecutor(min(READERS, len(addresses))) as readers:
        answers = dict(zip(addresses, readers.map(one, addresses.values()), strict=True))
    return (
        {name: text for name, (text, why) in answers.items() if not why},
        {name: why for name, (_, why) in answers.items() if why},
    )
