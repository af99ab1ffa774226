"""Promises: the collection keeps its own rules, also where no Ansible is installed: nothing but ansible.builtin, by its
whole name; a command says when it changed something; secrets are never shown; rolling plays take one node at a time;
every variable is documented and belongs to its role."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from support.collection import COLLECTION, ROLES, load, playbooks, plays, role_variables, tasks, yaml_files

ROLLING = ("deploy.yml", "rolling_restart.yml", "rolling_upgrade.yml")
PLAYBOOKS = {
    "add_node", "backup", "deploy", "monitoring", "remove_node", "replace_node", "rolling_restart", "rolling_upgrade",
    "rotate_certificates",
}  # fmt: skip
COMMANDS = ("ansible.builtin.command", "ansible.builtin.shell", "ansible.builtin.raw", "ansible.builtin.script")
SECRET = re.compile(r"\bnode_secret\b|\bnode_tls_key_file\b")


def test_every_file_is_yaml() -> None:
    assert len(yaml_files()) > 30
    for path in yaml_files():
        assert list(yaml.safe_load_all(path.read_text(encoding="utf-8"))), path


def test_every_playbook_is_there() -> None:
    assert {path.stem for path in playbooks()} == PLAYBOOKS


def test_every_task_says_what_it_is_for() -> None:
    nameless = [task.where for task in tasks() if not re.match(r"[A-Z]", str(task.body.get("name", "")))]
    assert not nameless


def test_only_what_ansible_brings_is_called_and_by_its_whole_name() -> None:
    strange = [task.where for task in tasks() if task.module and not task.module.startswith("ansible.builtin.")]
    assert not strange


def test_nothing_goes_through_a_shell() -> None:
    found = [task.where for task in tasks() if task.module in COMMANDS and task.module != "ansible.builtin.command"]
    assert not found
    assert not [task.where for task in tasks() if task.module in COMMANDS and "argv" not in task.arguments]


def test_a_command_says_when_it_changed_something() -> None:
    silent = [
        task.where
        for task in tasks()
        if task.module in COMMANDS and "changed_when" not in task.body and "creates" not in task.arguments
    ]
    assert not silent


def test_secrets_are_not_shown() -> None:
    shown = [
        task.where
        for task in tasks()
        if SECRET.search(str(task.arguments)) and task.module and not task.body.get("no_log")
    ]
    assert not shown
    assert sum(bool(task.body.get("no_log")) for task in tasks()) >= 3


def test_files_say_who_may_read_them() -> None:
    writers = ("ansible.builtin.copy", "ansible.builtin.template")
    for task in tasks():
        if task.module in writers:
            assert re.fullmatch("0[0-7]{3}", str(task.arguments.get("mode"))), task.where
        if task.module in writers and SECRET.search(str(task.arguments)):
            assert task.arguments["mode"] == "0400", task.where


@pytest.mark.parametrize("name", ROLLING)
def test_rolling_plays_take_one_node_at_a_time_and_stop_at_the_first_failure(name: str) -> None:
    rolling = [play for path, play in plays() if path.name == name and re.search("'(roll|restart)'", str(play))]
    assert len(rolling) == 1
    assert rolling[0]["serial"] == 1
    assert rolling[0]["max_fail_percentage"] == 0


def test_a_node_is_restarted_in_one_place_only_after_it_was_drained() -> None:
    restarts = [
        task
        for task in tasks()
        if task.module == "ansible.builtin.systemd_service"
        and task.arguments.get("state") == "restarted"
        and task.arguments.get("name") == "leafdb"
    ]
    assert [task.path.name for task in restarts] == ["restart.yml"]
    steps = [str(step.get("ansible.builtin.include_tasks", step.get("name"))) for step in load(restarts[0].path)]
    assert steps == ["drain.yml", "switch.yml", "Restart the node", "healthy.yml"]
    drain = [str(task.arguments) for task in tasks() if task.path.name == "drain.yml"]
    order = [next(n for n, text in enumerate(drain) if word in text) for word in ("'safe-to-stop'", "'drain'")]
    assert order == sorted(order)


def test_the_ring_is_changed_by_the_plan_that_was_looked_at() -> None:
    """Who commits names the id that `cluster plan` showed, and refuses what others have staged."""
    change = str(load(COLLECTION / "roles" / "node" / "tasks" / "change.yml"))
    assert "node_plan.plan_id" in change
    assert "--force" not in change


def test_data_are_given_up_only_by_somebody_who_says_so() -> None:
    assert "leafdb_i_understand_data_loss" in str(load(COLLECTION / "playbooks" / "remove_node.yml")[0])
    forced = [task.where for task in tasks() if "--i-understand-data-loss" in str(task.body)]
    assert len(forced) == 1, forced


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_documented_and_has_its_role_in_its_name(role: str) -> None:
    specs: dict[str, Any] = load(COLLECTION / "roles" / role / "meta" / "argument_specs.yml")
    options = specs["argument_specs"]["main"]["options"]
    defaults = role_variables(role, "defaults")
    assert set(defaults) <= set(options)
    assert {name for name, option in options.items() if not option.get("required")} == set(defaults)
    assert all(option["description"] for option in options.values())
    for name, option in options.items():
        assert name.startswith(f"{role}_")
        if "default" in option:
            assert option["default"] == defaults[name], name
    assert all(name.startswith(f"{role}_") for name in role_variables(role, "vars"))


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_used(role: str) -> None:
    text = "".join(
        path.read_text(encoding="utf-8")
        for path in (COLLECTION / "roles" / role).rglob("*")
        if path.is_file() and path.name != "argument_specs.yml"
    )
    idle = [name for name in role_variables(role, "defaults") if len(re.findall(rf"\b{name}\b", text)) < 2]
    assert not idle


def test_what_is_notified_exists() -> None:
    for role in ROLES:
        handlers = {each["name"] for each in load(COLLECTION / "roles" / role / "handlers" / "main.yml")}
        notified = {task.body["notify"] for task in tasks() if "notify" in task.body and f"/{role}/" in str(task.path)}
        assert notified == handlers


def test_what_is_included_exists() -> None:
    for task in tasks():
        if task.module in ("ansible.builtin.include_tasks", "ansible.builtin.import_tasks"):
            assert (task.path.parent / task.arguments).exists(), task.where
        if task.module == "ansible.builtin.include_role":
            role = task.arguments["name"].removeprefix("leafdb.leafdb.")
            file = f"{task.arguments.get('tasks_from', 'main')}.yml"
            assert (COLLECTION / "roles" / role / "tasks" / file).exists(), task.where
