"""A browser with one cookie, for the example programs that are web sites."""

from __future__ import annotations

import http.client
from typing import Final

PAGE_S: Final = 30.0


class Browser:
    """Somebody who visits a site on this machine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = ""

    def open(self, path: str) -> str:
        """What the page says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PAGE_S)
        try:
            connection.request("GET", path, headers={"Cookie": self.cookie} if self.cookie else {})
            response = connection.getresponse()
            assert response.status == 200, response.status
            if said := response.getheader("Set-Cookie"):
                self.cookie = said.partition(";")[0]
            return response.read().decode()
        finally:
            connection.close()
