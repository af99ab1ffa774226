"""Log lines: facts become fields, a flood is cut short and counted, an embedded host is left alone."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from leafdb.node.logs import EVENTS_REMEMBERED_MAX, Log, RepeatFilter

NAMES = ("leafdb", "trio", "py.warnings")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    log_output = pytest.importorskip("leafdb.node.log_output")
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).propagate) for name in NAMES}
    level = logging.getLogger("leafdb").level
    stream = io.StringIO()
    log_output.configure("info", "json", stream, node="n1")
    yield stream
    for name, (handlers, propagate) in before.items():
        logging.getLogger(name).handlers[:] = handlers
        logging.getLogger(name).propagate = propagate
    logging.getLogger("leafdb").setLevel(level)
    logging.captureWarnings(False)


def test_a_line_is_one_json_object_with_its_facts(lines: io.StringIO) -> None:
    Log("gossip").warning("peer suspected", peer="n2", after_s=2.5, nonce=b"\x01\xff", event="mine")
    (line,) = lines.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("ts").endswith("Z")
    assert found == {
        "event": "peer suspected",
        "event_": "mine",
        "level": "warning",
        "logger": "leafdb.gossip",
        "node": "n1",
        "peer": "n2",
        "after_s": 2.5,
        "nonce": "01ff",
    }


def test_an_error_brings_its_traceback_in_the_same_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("broken\nin two lines")
    except ValueError as error:
        Log("node").error("callback failed", error=error, what={"a": object})
    (line,) = lines.getvalue().splitlines()
    assert "broken" in json.loads(line)["exception"]


def test_less_important_lines_are_left_out(lines: io.StringIO) -> None:
    Log("node").debug("detail")
    Log("node").info("shown")
    assert [json.loads(line)["event"] for line in lines.getvalue().splitlines()] == ["shown"]


def test_a_flood_is_cut_short(lines: io.StringIO) -> None:
    for _ in range(100):
        Log("session").warning("bad frame")
    Log("session").warning("something else")
    events = [json.loads(line)["event"] for line in lines.getvalue().splitlines()]
    assert events == ["bad frame"] * 5 + ["something else"]


def record(event: str, created: float) -> logging.LogRecord:
    made = logging.LogRecord("leafdb.x", logging.INFO, "", 0, event, None, None)
    made.created = created
    return made


def test_after_a_silence_the_number_left_out_is_told() -> None:
    repeats = RepeatFilter(burst=2, window_s=10.0)
    assert [repeats.filter(record("e", float(second))) for second in range(5)] == [True, True, False, False, False]
    later = record("e", 11.0)
    assert repeats.filter(later)
    assert vars(later)["facts"] == {"left_out": 3}
    assert repeats.filter(record("e", 3.0)), "a clock that went back must not silence an event"
    repeats.check()


def test_events_without_number_take_no_memory_without_bound() -> None:
    repeats = RepeatFilter()
    for index in range(3 * EVENTS_REMEMBERED_MAX):
        assert repeats.filter(record(f"event {index}", 0.0))
    repeats.check()


def test_logging_through_the_node_needs_no_configuration() -> None:
    log = Log("quiet")
    log.debug("x", a=1)
    log.info("x", a=1)
    assert logging.getLogger("leafdb.quiet").handlers == []


def test_people_get_a_form_of_their_own() -> None:
    log_output = pytest.importorskip("leafdb.node.log_output")
    stream = io.StringIO()
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).propagate) for name in NAMES}
    try:
        log_output.configure("info", "console", stream, node="n1")
        Log("node").info("ready", port=7411)
    finally:
        for name, (handlers, propagate) in before.items():
            logging.getLogger(name).handlers[:] = handlers
            logging.getLogger(name).propagate = propagate
        logging.captureWarnings(False)
    assert "ready" in stream.getvalue()
    assert "port=7411" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
