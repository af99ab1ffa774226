"""leafdb: a leaderless distributed key-value database in typed Python."""

from __future__ import annotations
