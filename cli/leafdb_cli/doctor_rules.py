"""What `leafdb doctor` makes of what it has seen: findings, each with what to do about it. Pure.

problem    something does not work, or will not for long: the exit code is 7
warning    it works, and somebody should know
hint       it could be better; fine where it is meant to be so
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from leafdb.limits import DISK_FREE_BYTES_HIGH, HLC_DRIFT_MS_ALARM, HLC_DRIFT_MS_MAX
from leafdb_cli.render import human_bytes

DISK_BYTES_ROOMY: Final = 1 << 30
OPEN_FILES_SPARE: Final = 1_024
"""Beside a connection of each client: tables, logs, peers."""
LISTEN_BACKLOG_LEAST: Final = 1_024
SWAPPINESS_MOST: Final = 10
DAY_S: Final = 86_400
CERTIFICATE_DAYS_LOW: Final = 30
CERTIFICATE_DAYS_LAST: Final = 3
"""With fewer left there is no time for a weekend."""
NOT_COMPARED: Final = ("node.", "listen.", "log.", "cluster.seeds", "cluster.secret_file")
"""Settings that are each node's own."""
ALIKE: Final = ("repair.", "replication.", "auth.", "tls.", "cluster.")
"""Sections that make a cluster behave oddly when they differ; the others may suit the machine."""
TROUBLE: Final = "docs/operations/trouble.md has every such sentence, with what to do"


class Level(StrEnum):
    """How bad it is."""

    PROBLEM = "problem"
    WARNING = "warning"
    HINT = "hint"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing, and what to do about it. `node` is empty for what concerns several, or this machine."""

    level: Level
    check: str
    node: str
    found: str
    advice: str

    def item(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "level": str(self.level), "node": self.node or None}


@dataclass(frozen=True, slots=True)
class Seen:
    """What was looked at. Times are this machine's, in unix milliseconds."""

    asked_ms: int
    answered_ms: int
    version: str
    nodes: Mapping[str, Mapping[str, Any]]
    """What each node says of itself, by name."""
    errors: Mapping[str, str]
    members: Sequence[Mapping[str, Any]]
    problems: Sequence[str]
    ring_warnings: Sequence[str]
    unreached: Mapping[tuple[str, str], str]
    """Why an address could not be reached from here, by node and `client`, `peer` or `http`."""


Rule = Callable[[Seen], Iterator[Finding]]


def findings(seen: Seen) -> list[Finding]:
    """Everything, the worst first."""
    found = [finding for rule in RULES.values() for finding in rule(seen)]
    return sorted(found, key=lambda finding: list(Level).index(finding.level))


def _answers(seen: Seen) -> Iterator[Finding]:
    for name, why in seen.errors.items():
        advice = "start it, or look at the network between the nodes; gone for good: leafdb cluster stage force-remove"
        yield Finding(Level.PROBLEM, "answers", name, f"the other nodes cannot ask it: {why}", advice)


def _addresses(seen: Seen) -> Iterator[Finding]:
    about = {
        "client": (Level.PROBLEM, "let clients reach that port, or say in listen.advertise where it can be reached"),
        "peer": (Level.HINT, "as it should be, where only nodes may reach it; if they cannot, it is a problem below"),
        "http": (Level.WARNING, "whoever watches this cluster may not reach it either; leafdb top has no latencies"),
    }
    addresses = {str(member["name"]): member for member in seen.members}
    for (name, kind), why in seen.unreached.items():
        if name not in seen.errors:
            level, advice = about[kind]
            what = f"its {kind} address {addresses[name][kind]} cannot be reached from here: {why}"
            yield Finding(level, "addresses", name, what, advice)


def _status(seen: Seen) -> Iterator[Finding]:
    for problem in seen.problems:
        name, colon, rest = problem.partition(": ")
        if name.removesuffix(" cannot be reached") in seen.errors or " is at epoch " in problem:
            continue
        if rest.startswith("its certificate ") and seen.nodes.get(name, {}).get("certificates"):
            continue
        known = bool(colon) and name in seen.nodes
        yield Finding(Level.PROBLEM, "status", name if known else "", rest if known else problem, TROUBLE)
    for warning in seen.ring_warnings:
        yield Finding(Level.HINT, "ring", "", warning, "add hosts or zones, or spread the nodes over those there are")


def _certificates(seen: Seen) -> Iterator[Finding]:
    """By each node's own clock, which is what its certificates are judged by there."""
    for name, facts in seen.nodes.items():
        for which, not_after_s in facts.get("certificates", {}).items():
            left_days = (float(not_after_s) - int(facts["now_ms"]) / 1000) / DAY_S
            if left_days < CERTIFICATE_DAYS_LOW:
                ends = f"runs out in {left_days:.0f} days" if left_days > 0 else "has run out: nobody can connect"
                what = f"its certificate {ends}" if which == "node" else f"the last CA it believes {ends}"
                how = "leafdb cert rotate" if which == "node" else "leafdb cert rotate --authority"
                level = Level.PROBLEM if left_days < CERTIFICATE_DAYS_LAST else Level.WARNING
                advice = f"{how}, and the new files in place of the old: no restart (docs/operations/tls.md)"
                yield Finding(level, "certificates", name, what, advice)


def _versions(seen: Seen) -> Iterator[Finding]:
    versions = {name: str(facts["version"]) for name, facts in seen.nodes.items()}
    if len(set(versions.values())) > 1:
        advice = "fine during a rolling upgrade: finish it; otherwise bring all to the same version"
        yield Finding(Level.WARNING, "versions", "", f"the nodes have several: {_by_value(versions)}", advice)
    elif versions and seen.version not in versions.values():
        (theirs,) = set(versions.values())
        what = f"this client is of version {seen.version}, the nodes of {theirs}"
        yield Finding(
            Level.HINT, "versions", "", what, f"pip install leafdb=={theirs} has the client that was tested with them"
        )


def _epochs(seen: Seen) -> Iterator[Finding]:
    epochs = {name: str(facts["epoch"]) for name, facts in seen.nodes.items()}
    if len(set(epochs.values())) > 1:
        advice = "ask again in a few seconds; if they still differ, the nodes do not hear of each other: leafdb status"
        yield Finding(Level.WARNING, "epochs", "", f"the nodes are at several: {_by_value(epochs)}", advice)


def _clocks(seen: Seen) -> Iterator[Finding]:
    clocks = {name: int(facts["now_ms"]) for name, facts in seen.nodes.items()}
    if not clocks:
        return
    asking_ms = seen.answered_ms - seen.asked_ms
    first, last = min(clocks, key=clocks.__getitem__), max(clocks, key=clocks.__getitem__)
    apart_ms = clocks[last] - clocks[first] - asking_ms
    advice = "look at the time synchronisation of both machines: chronyc tracking, timedatectl"
    if apart_ms > HLC_DRIFT_MS_ALARM:
        level = Level.PROBLEM if apart_ms > HLC_DRIFT_MS_MAX else Level.WARNING
        yield Finding(level, "clocks", last, f"its clock is {_seconds(apart_ms)} ahead of that of {first}", advice)
        return
    off_ms = max(clocks[first] - seen.answered_ms, seen.asked_ms - clocks[last])
    if off_ms > HLC_DRIFT_MS_ALARM:
        side = "behind" if clocks[first] > seen.answered_ms else "ahead of"
        what = f"this machine's clock is {_seconds(off_ms)} {side} those of the nodes"
        yield Finding(
            Level.HINT, "clocks", "", what, "look at the time synchronisation here: chronyc tracking, timedatectl"
        )


def _disks(seen: Seen) -> Iterator[Finding]:
    for name, facts in seen.nodes.items():
        free, stored = int(facts["disk_free_bytes"]), int(facts["stored_bytes"])
        what = f"{human_bytes(free)} are free on its disk, and it stores {human_bytes(stored)}"
        if free < DISK_FREE_BYTES_HIGH:
            yield Finding(Level.PROBLEM, "disks", name, what, "make room now: it takes no writes when it is full")
        elif free < max(DISK_BYTES_ROOMY, stored // 2):
            advice = "make room, or add a node: a compaction or another node's data may not fit"
            yield Finding(Level.WARNING, "disks", name, what, advice)


def _open_files(seen: Seen) -> Iterator[Finding]:
    for name, facts in seen.nodes.items():
        most = facts["machine"].get("open_files_max")
        wanted = int(facts["settings"].get("limits.client_sessions_max", 0)) + OPEN_FILES_SPARE
        if most is not None and most < wanted:
            what = f"it may have {most} files open; its clients and its own files may take {wanted}"
            advice = (
                f"LimitNOFILE={max(wanted, 65_536)} in its unit (or ulimit -Hn), or lower limits.client_sessions_max"
            )
            yield Finding(Level.WARNING, "open files", name, what, advice)


def _settings(seen: Seen) -> Iterator[Finding]:
    paths = dict.fromkeys(path for facts in seen.nodes.values() for path in facts["settings"])
    for path in paths:
        if path.startswith(NOT_COMPARED):
            continue
        values = {name: str(facts["settings"].get(path, "unknown to it")) for name, facts in seen.nodes.items()}
        if len(set(values.values())) > 1:
            level = Level.WARNING if path.startswith(ALIKE) else Level.HINT
            advice = "make them alike in the configuration files, unless the machines differ; then restart or reload"
            yield Finding(level, "settings", "", f"{path} differs: {_by_value(values)}", advice)


def _exposure(seen: Seen) -> Iterator[Finding]:
    for name, facts in seen.nodes.items():
        for warning in facts["warnings"]:
            yield Finding(
                Level.WARNING,
                "exposure",
                name,
                str(warning),
                "protect it, or listen where only those you trust can reach it",
            )


def _kernel(seen: Seen) -> Iterator[Finding]:
    for name, facts in seen.nodes.items():
        machine: Mapping[str, int] = facts["machine"]
        backlog = machine.get("listen_backlog_max")
        if backlog is not None and backlog < LISTEN_BACKLOG_LEAST:
            what = f"net.core.somaxconn is {backlog}: connections that come all at once are refused"
            yield Finding(Level.HINT, "kernel", name, what, "sysctl -w net.core.somaxconn=4096, and in /etc/sysctl.d")
        swappiness = machine.get("swappiness", 0)
        if machine.get("swap_bytes") and swappiness > SWAPPINESS_MOST:
            what = f"vm.swappiness is {swappiness}, and there is swap: memory of the node may go to disk"
            yield Finding(Level.HINT, "kernel", name, what, "sysctl -w vm.swappiness=1, and in /etc/sysctl.d")


RULES: Final[Mapping[str, Rule]] = {
    "answers": _answers,
    "addresses": _addresses,
    "status": _status,
    "certificates": _certificates,
    "versions": _versions,
    "epochs": _epochs,
    "clocks": _clocks,
    "disks": _disks,
    "open files": _open_files,
    "settings": _settings,
    "exposure": _exposure,
    "kernel": _kernel,
}


def unreachable(attempts: Mapping[str, str]) -> list[Finding]:
    """When no node answers at all."""
    advice = "is leafdbd running there? leafdb context show says what gave this address; --node names another"
    return [
        Finding(Level.PROBLEM, "answers", "", f"nobody answers at {address}: {why}", advice)
        for address, why in attempts.items()
    ]


def _by_value(values: Mapping[str, str]) -> str:
    """`a, b: 1; c: 2`."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return "; ".join(f"{', '.join(have)}: {value}" for value, have in names.items())


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.1f} s"
