"""The page about every setting and the commented sample file, both made from the settings themselves.

    python -m leafdb.node.settings_page reference > docs/operations/configuration.md
    python -m leafdb.node.settings_page sample > docs/operations/leafdb.toml

A test compares what is committed with what is made, so the page cannot fall behind.
"""

from __future__ import annotations

import sys
import textwrap
from dataclasses import fields
from typing import Any, Final

from leafdb.config import Config, Kind
from leafdb.node.described import Described, described
from leafdb.node.units import duration_text, size_text

HEAD: Final = """\
# Configuration

    leafdbd --config leafdb.toml [--set section.key=value ...] [--check]

Four layers, each over the one before: the defaults below, the file, environment variables
`LEAFDB__SECTION__KEY` (`LEAFDB__LOG__LEVEL=debug`), and `--set log.level=debug`. In the last two a list is written
with commas. `--check` reads everything, says what is wrong and ends; so does a start: all problems are listed at once,
each with its path, and the exit code is 1.

Sizes and durations are text with a unit: `"64MiB"`, `"250ms"`. Units of size are B, KiB, MiB, GiB, TiB and the decimal
kB, MB, GB, TB; of time ms, s, m, h, d. A bare number is refused. Secrets are never values: a setting that ends in
`_file` names the file that holds one, with a mode that lets nobody else read it. Relative paths in a file start at
the directory of that file.

Buckets (replicas, quorums, conflict policy, durability, ttl) are not configured here: they are state of the cluster,
the same for every node. See `leafdb bucket`.

SIGHUP reads the configuration again. Settings marked *reloadable* change at once; the log names the others that differ
and wait for a restart.

A [commented sample](leafdb.toml) holds every setting with its default.
"""
WIDTH: Final = 100


def written(value: Any, kind: Kind) -> str:
    """A value as a configuration file has it."""
    match kind:
        case Kind.SIZE:
            return f'"{size_text(value)}"'
        case Kind.DURATION:
            return f'"{duration_text(value)}"'
        case Kind.FLAG:
            return "true" if value else "false"
        case Kind.COUNT:
            return str(value)
        case Kind.ADDRESSES:
            return "[" + ", ".join(f'"{entry}"' for entry in value) + "]"
        case Kind.TEXT | Kind.PATH | Kind.ADDRESS | Kind.CHOICE:
            return f'"{value}"'


def range_of(entry: Described) -> str:
    """What a value may be, as words; "" where the kind says it all."""
    about = entry.setting
    if about.choices:
        return ", ".join(about.choices)
    bounds = sorted({bound for bound in (about.at_least, about.at_most) if bound is not None})
    if not bounds:
        return ""
    show = {Kind.SIZE: lambda bound: size_text(int(bound)), Kind.DURATION: duration_text}
    return " to ".join(show.get(about.kind, lambda bound: str(int(bound)))(bound) for bound in bounds)


def reference() -> str:
    """docs/operations/configuration.md."""
    parts = [HEAD]
    for name, theory, entries in _sections():
        parts.append(f"\n## [{name}]\n\n{theory}\n")
        if not entries:
            continue
        parts.append("\n| Setting | Kind | Default | Range | |\n|---|---|---|---|---|\n")
        for entry in entries:
            doc = entry.setting.doc + (" *Reloadable.*" if entry.setting.reloadable else "")
            default = f"`{written(entry.default, entry.setting.kind)}`"
            parts.append(f"| `{entry.key}` | {entry.setting.kind.value} | {default} | {range_of(entry)} | {doc} |\n")
    return "".join(parts)


def sample() -> str:
    """docs/operations/leafdb.toml: every setting, commented out at its default."""
    parts = ["# Every setting of leafdbd at its default. See configuration.md; uncomment what should differ.\n"]
    for name, theory, entries in _sections():
        parts.append(f"\n{_comment(theory)}[{name}]\n")
        for entry in entries:
            bounds = range_of(entry)
            parts.append(_comment(entry.setting.doc + (f" ({bounds})" if bounds else "")))
            parts.append(f"#{entry.key} = {written(entry.default, entry.setting.kind)}\n")
    return "".join(parts)


def _sections() -> list[tuple[str, str, list[Described]]]:
    """Name, theory and settings of each section."""
    entries = list(described())
    found = []
    for section in fields(Config):
        theory = " ".join((type(section.default).__doc__ or "").split())
        found.append((section.name, theory, [entry for entry in entries if entry.section == section.name]))
    return found


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, WIDTH))


if __name__ == "__main__":
    sys.stdout.write(sample() if sys.argv[1:] == ["sample"] else reference())
