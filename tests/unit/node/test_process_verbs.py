"""Promises: a node tells its settings with their origins; its log level changes and is told; a profile sees a function
that is busy, is bounded and made one at a time; statistics come from every member, or the one that is named."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

from leafdb.config import Config
from leafdb.errors import NotApplied, Overloaded
from leafdb.model.key import encode_key
from leafdb.node import admin_process, admin_stats, logs, profiler
from leafdb.node.described import described
from leafdb.node.hot_keys import EVERY
from leafdb.node.node import Node
from leafdb.node.settings_in_force import Read, SettingsInForce
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId

N1, N2 = NodeId(1), NodeId(2)


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    logger = logging.getLogger("leafdb")
    before = logger.level
    yield
    logger.setLevel(before)


@virtual
async def test_settings_are_told_with_their_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_cluster(1) as cluster:
        node = cluster.nodes[N1]
        by_path = {line["path"]: line for line in (await admin_process.config_show(node, {}))["settings"]}
        assert list(by_path) == [entry.path for entry in described()]
        assert by_path["node.name"]["origin"] == "program", "a test has no file"
        assert by_path["log.level"] == {
            "path": "log.level", "value": '"info"', "default": '"info"', "differs": False, "origin": "default",
            "reloadable": True, "waiting": "",
        }  # fmt: skip

        config = Config()
        later = replace(config, node=replace(config.node, zone="r2"), log=replace(config.log, level="debug"))
        origins = {entry.path: "default" for entry in described()}
        from_file = {**origins, "log.level": "file leafdb.toml", "node.zone": "file leafdb.toml"}
        settings = SettingsInForce(Read(config, origins), lambda: Read(later, from_file))
        settings.reload()
        monkeypatch.setattr(node, "world", replace(node.world, settings=settings))
        by_path = {line["path"]: line for line in (await admin_process.config_show(node, {}))["settings"]}
        assert (by_path["log.level"]["value"], by_path["log.level"]["origin"]) == ('"debug"', "file leafdb.toml")
        zone = by_path["node.zone"]
        assert (zone["value"], zone["waiting"], zone["origin"]) == ('"default"', '"r2"', "default")


@virtual
async def test_the_log_level_is_told_and_changed() -> None:
    async with memory_cluster(1) as cluster:
        node = cluster.nodes[N1]
        logs.set_level("info")
        assert (await admin_process.node_loglevel(node, {}))["level"] == "info"
        changed = await admin_process.node_loglevel(node, {"level": "debug"})
        assert (changed["level"], changed["was"]) == ("debug", "info")
        assert logs.level() == "debug"
        with pytest.raises(NotApplied, match="none of debug"):
            await admin_process.node_loglevel(node, {"level": "loud"})


def busy_function(until: threading.Event) -> None:
    while not until.is_set():
        sum(range(1_000))


def test_a_profile_sees_who_is_busy() -> None:
    stop, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=busy_function, args=(done,), name="worker bee")
    thread.start()
    try:
        seen = profiler.sample(0.3, stop)
    finally:
        done.set()
        thread.join()
    busy = {stack: count for stack, count in seen.items() if stack.startswith("worker bee;")}
    assert busy
    assert all("busy_function" in stack for stack in busy)
    assert not any("profiler:sample" in stack for stack in seen), "it does not look at itself"
    stop.set()
    assert profiler.sample(60.0, stop) == {}, "told to stop"


def test_a_stack_is_cut_at_its_outer_end() -> None:
    def deep(left: int) -> str:
        if left:
            return deep(left - 1)
        import sys

        return profiler.folded(sys._getframe())

    names = deep(200).split(";")
    assert len(names) == profiler.DEPTH_MAX
    assert all(name.endswith("deep") for name in names)


def profile_twice() -> tuple[dict[str, object], list[str]]:
    """An answer, and what was said to others. Not in virtual time: in that nothing takes any."""

    async def run() -> tuple[dict[str, object], list[str]]:
        refused: list[str] = []
        async with memory_cluster(1) as cluster:
            node = cluster.nodes[N1]
            answer: dict[str, object] = {}

            async def first() -> None:
                answer.update(await admin_process.node_profile(node, {"seconds": 0.3}))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                await trio.sleep(0.05)
                refused.append(await refusal(node, 0.1))
            refused.append(await refusal(node, 0.0))
            refused.append(await refusal(node, profiler.SECONDS_MAX + 1))
        return answer, refused

    return trio.run(run)


async def refusal(node: Node, seconds: float) -> str:
    try:
        await admin_process.node_profile(node, {"seconds": seconds})
    except (Overloaded, NotApplied) as error:
        return str(error)
    return "was not refused"


def test_a_node_is_profiled_once_at_a_time_and_not_for_long() -> None:
    answer, refused = profile_twice()
    stacks = answer["stacks"]
    assert isinstance(stacks, list)
    assert stacks
    assert any("trio" in line["stack"] for line in stacks)
    assert refused[0] == "this node is being profiled already"
    assert all("up to 60 seconds" in each for each in refused[1:])


@virtual
async def test_statistics_come_from_every_member_or_one() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        for number in range(20 * EVERY):
            key = "hot" if number % 2 else f"cold{number}"
            context = (await client.get(bucket, key)).context
            await client.put(bucket, key, b"x", context)
        node = cluster.nodes[N2]
        found = await admin_stats.latency(node, {})
        assert set(found["nodes"]) == {"n1", "n2", "n3"}
        puts = [
            sum(line["counts"])
            for answer in found["nodes"].values()
            for line in answer["durations"]
            if (line["metric"], line["op"]) == ("request", "put")
        ]
        assert sum(puts) == 20 * EVERY
        one = await admin_stats.queues(node, {"node": "n3"})
        assert set(one["nodes"]) == {"n3"}
        assert {"requests", "hints"} <= {line["queue"] for line in one["nodes"]["n3"]["queues"]}

        hot = await admin_stats.top(node, {"count": 1})
        (first,) = hot["nodes"]["n1"]["keys"]
        assert (first["bucket"], first["key"]) == ("b", [b"hot"])
        assert hot["nodes"]["n1"]["sampled"] == pytest.approx(40, abs=15)
        with pytest.raises(ValueError, match="count"):
            await admin_stats.top(node, {"count": 1_000})

        samples = (await admin_stats.metrics_read(cluster.nodes[N1], {}))["samples"]
        values = {(line["metric"], *line["labels"].values()): line["value"] for line in samples}
        assert values["leafdb_requests_total", "put"] == 20 * EVERY
        assert values["leafdb_request_duration_seconds_count", "put"] == 20 * EVERY
        assert values["leafdb_request_duration_seconds_bucket", "put", "+Inf"] == 20 * EVERY
        assert node.coordinator.times.named(encode_key("hot")) == cluster.nodes[N1].coordinator.times.named(
            encode_key("hot")
        ), "one name for a key, on every node"
