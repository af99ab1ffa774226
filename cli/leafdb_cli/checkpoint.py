"""Where an import or export goes on after it was interrupted: a small JSON file beside the data.

It names what it belongs to, so that it is never applied to another bucket, format or path. It is replaced whole, by
rename, and removed at the end. What it counts as done is done: a batch is recorded after its last acknowledgement, and
what was in flight is simply done again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from leafdb.errors import ConfigError

VERSION: Final = 1


class Checkpoint:
    """The state of one job. `position` means what the job's source or target says it means."""

    def __init__(self, path: Path | None, job: dict[str, str]) -> None:
        self.path = path
        self.job = job
        self.position: Any = None
        self.count = 0

    def load(self) -> bool:
        """Take over what an earlier run left. False: there was none. ConfigError when it is another job's."""
        if self.path is None:
            return False
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise ConfigError(f"checkpoint {self.path} cannot be read ({error}): remove it to begin anew") from None
        if not isinstance(found, dict) or found.get("version") != VERSION or found.get("job") != self.job:
            raise ConfigError(f"{self.path} is the checkpoint of another job: remove it, or name one with --checkpoint")
        self.position = found.get("position")
        self.count = int(found.get("count", 0))
        return True

    def save(self, position: Any, count: int) -> None:
        """Record that everything up to `position` is done."""
        self.position, self.count = position, count
        if self.path is None:
            return
        document = {"version": VERSION, "job": self.job, "position": position, "count": count}
        beside = self.path.with_name(self.path.name + ".new")
        beside.write_text(json.dumps(document), encoding="utf-8")
        os.replace(beside, self.path)

    def remove(self) -> None:
        """The job is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def default_path(data: Path, word: str) -> Path:
    """Beside the data, never inside: a checkpoint is not to be imported."""
    absolute = Path(os.path.abspath(data))
    return absolute.with_name(f".{absolute.name}.leafdb-{word}")
