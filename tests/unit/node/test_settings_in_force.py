"""Promises: a reload takes over what may change and names the rest; a faulty configuration changes nothing; whoever
follows hears at once and after each change; the origin of a value is that of the value in force."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from leafdb.config import Config
from leafdb.errors import ConfigError
from leafdb.node.described import described
from leafdb.node.settings_in_force import Read, SettingsInForce

DEFAULTS = {entry.path: "default" for entry in described()}


def read(origins: dict[str, str] | None = None, **sections: object) -> Read:
    """What the layers say: sections of a configuration, each with changed attributes."""
    config = Config()
    for name, changes in sections.items():
        assert isinstance(changes, dict)
        config = replace(config, **{name: replace(getattr(config, name), **changes)})
    return Read(config, {**DEFAULTS, **(origins or {})})


def facts(caplog: pytest.LogCaptureFixture) -> dict[str, dict[str, object]]:
    return {line.msg: vars(line)["facts"] for line in caplog.records}


def test_a_reload_takes_over_what_may_change_and_names_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "leafdb.process")
    wanted = read(
        {"log.level": "file leafdb.toml", "node.zone": "file leafdb.toml"},
        log={"level": "debug", "show_keys": True},
        node={"zone": "r2"},
        limits={"client_sessions_max": 7},
    )
    settings = SettingsInForce(read(), lambda: wanted)
    heard: list[Config] = []
    settings.follow(heard.append)
    assert [config.log.level for config in heard] == ["info"], "told at once"
    settings.reload()
    assert heard[-1].log.level == "debug"
    assert heard[-1].limits.client_sessions_max == 7
    assert heard[-1].node.zone == settings.config.node.zone == "default", "that waits for a restart"
    assert settings.waiting == {"node.zone": "r2"}
    assert (settings.origins["log.level"], settings.origins["node.zone"]) == ("file leafdb.toml", "default")
    said = facts(caplog)
    changed = ["limits.client_sessions_max", "log.level", "log.show_keys"]
    assert said["configuration reloaded"] == {"changed": changed, "level": "debug"}
    assert said["these settings wait for a restart"] == {"settings": ["node.zone"]}


def test_what_waited_and_was_taken_back_waits_no_more() -> None:
    layers = [read(node={"zone": "r2"}), read()]
    settings = SettingsInForce(read(), lambda: layers.pop(0))
    settings.reload()
    assert settings.waiting == {"node.zone": "r2"}
    settings.reload()
    assert settings.waiting == {}


def test_a_faulty_configuration_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def faulty() -> Read:
        raise ConfigError("two problems", problems=["node.name: no", "log.level: no"])

    settings = SettingsInForce(read(log={"level": "error"}), faulty)
    heard: list[Config] = []
    settings.follow(heard.append)
    before = settings.config
    settings.reload()
    assert settings.config is before
    assert len(heard) == 1
    assert facts(caplog) == {"configuration not reloaded": {"problems": ["node.name: no", "log.level: no"]}}


def test_what_is_marked_reloadable_is_taken_over_by_a_running_node() -> None:
    """Whoever marks another setting has to have somebody follow it: serve.take_settings, or main for the level."""
    assert {entry.path for entry in described() if entry.setting.reloadable} == {
        "limits.client_sessions_max", "log.level", "log.show_keys", "log.slow_request",
    }  # fmt: skip
