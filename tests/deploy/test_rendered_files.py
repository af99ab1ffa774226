"""Promises: whatever the inventory says, the role writes a configuration that leafdbd takes, and a unit that systemd
takes and finds well confined."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from leafdb.config import Config
from leafdb.node import settings
from support.collection import COLLECTION
from support.playing import Ansible

SECRET = "a-secret-of-at-least-thirty-two-characters"
EXPOSURE_MAX = 2.0
FILES = {"node_tls_ca_file": "ca", "node_tls_cert_file": "c", "node_tls_key_file": "k"}
HOSTS: dict[str, dict[str, Any]] = {
    "plain": {"node_address": "127.0.0.1"},
    "tls": {"node_address": "10.0.0.1", **FILES},
    "locked": {"node_address": "10.0.0.2", **FILES, "node_tls_client_certificates": True},
    "moving": {"node_address": "10.0.0.3", **FILES, "node_insecure": True,
               "node_settings": {"tls": {"optional": True}}},
    "open": {"node_address": "db1.example", "node_tls": False, "node_insecure": True, "node_client_port": 9000},
    "six": {"node_address": "fd00::1", "node_tls": False, "node_insecure": True, "node_zone": "rack-6"},
    "many": {"node_address": "127.0.0.1", "node_shards": 3, "node_weight": 4, "node_name": "big",
             "node_settings": {
                 "limits": {"memory_bytes_max": "1GiB"}, "node": {"zone": "moved"}, "log": {"level": "debug"}}},
}  # fmt: skip


@pytest.fixture(scope="session")
def rendered(ansible: Ansible, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for each host of the inventory, with everything that is made from templates for it."""
    directory = tmp_path_factory.mktemp("rendered")
    role = COLLECTION / "roles" / "node"
    common = {
        "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "node_cluster_name": "prod",
        "node_secret": SECRET,
        "node_prefix": f"{directory}/{{{{ inventory_hostname }}}}",
    }  # fmt: skip
    hosts = {name: {"node_name": name, **given} for name, given in HOSTS.items()}
    files = {"leafdb.toml.j2": "leafdb.toml", "leafdb.service.j2": "leafdb.service", "sysctl.conf.j2": "sysctl.conf"}
    tasks = [
        {"ansible.builtin.template": {
            "src": str(role / "templates" / source), "dest": f"{{{{ node_prefix }}}}/{target}", "mode": "0600"}}
        for source, target in files.items()
    ]  # fmt: skip
    told = "{{ {'members': node_members, 'peers': node_peers, 'environment': node_cli_all} | to_json }}"
    tasks.append({"ansible.builtin.copy": {"content": told, "dest": "{{ node_prefix }}/told.json", "mode": "0600"}})
    play = {
        "hosts": "leafdb", "gather_facts": False, "vars_files": [str(role / "vars" / "main.yml")], "tasks": tasks,
    }  # fmt: skip
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text(encoding="utf-8"))
    inventory = {"leafdb": {"hosts": hosts, "vars": {**defaults, **common}}}
    (directory / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (directory / "render.yml").write_text(yaml.safe_dump([play]))
    for name in HOSTS:
        (directory / name / "etc" / "leafdb").mkdir(parents=True)
        secret = directory / name / "etc" / "leafdb" / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o400)
        program = directory / name / "opt" / "leafdb" / "current" / "bin" / "leafdbd"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/true\n")
        program.chmod(0o755)
    played = ansible.play("--inventory", str(directory / "hosts.yml"), str(directory / "render.yml"))
    assert played.code == 0, played.text
    return directory


def config_of(rendered: Path, host: str) -> Config:
    return settings.load(str(rendered / host / "leafdb.toml"), environment={}).config


@pytest.mark.parametrize("host", [host for host in HOSTS if "node_tls_ca_file" not in HOSTS[host]])
def test_leafdbd_takes_the_configuration(rendered: Path, host: str) -> None:
    config = config_of(rendered, host)
    assert config.cluster.name == "prod"
    assert config.cluster.secret_file == f"{rendered}/{host}/etc/leafdb/secret"
    assert config.node.data_dir == f"{rendered}/{host}/var/lib/leafdb"


def test_what_the_inventory_says_is_in_it(rendered: Path) -> None:
    plain, opened, six, many = (config_of(rendered, host) for host in ("plain", "open", "six", "many"))
    assert (plain.node.name, plain.node.zone, plain.node.shards) == ("plain", "default", 1)
    assert [str(opened.listen.client), str(opened.listen.peer), str(opened.listen.http)] == [
        "db1.example:9000", "db1.example:9001", "db1.example:9002",
    ]  # fmt: skip
    assert opened.auth.insecure
    assert not plain.auth.insecure
    assert str(six.listen.peer) == "[fd00::1]:7412"
    assert six.node.zone == "rack-6"
    assert (many.node.name, many.node.shards, many.node.weight, many.node.zone) == ("big", 3, 4, "moved")
    assert many.limits.memory_bytes_max == 1 << 30
    assert many.log.level == "debug"


def test_other_machines_are_met_with_tls_unless_said(rendered: Path) -> None:
    files = ["ca_file", "cert_file", "key_file"]
    for host, wanted in (("tls", files), ("locked", [*files, "client_ca_file"])):
        text = (rendered / host / "leafdb.toml").read_text()
        table = text.partition("[tls]\n")[2].partition("\n\n")[0]
        assert re.findall(r"^(\w+) = ", table, re.MULTILINE) == wanted
        assert "insecure" not in text
    assert "[tls]" not in (rendered / "plain" / "leafdb.toml").read_text()


def test_commands_speak_as_the_nodes_listen(rendered: Path) -> None:
    """With the node's certificate, but while TLS is optional; with the cluster's secret, but where nobody is asked."""
    said = {host: set(json.loads((rendered / host / "told.json").read_text())["environment"]) for host in HOSTS}
    sealed = {"LEAFDB_CA_FILE", "LEAFDB_CERT_FILE", "LEAFDB_KEY_FILE"}
    assert said["tls"] == said["locked"] == {*sealed, "LEAFDB_SECRET_FILE"}
    assert said["plain"] == {"LEAFDB_SECRET_FILE"}
    assert said["moving"] == said["open"] == set()


def test_a_machine_of_shards_is_several_members(rendered: Path) -> None:
    many = json.loads((rendered / "many" / "told.json").read_text())
    assert many["members"] == ["big-0", "big-1", "big-2"]
    assert many["peers"] == ["127.0.0.1:7412", "127.0.0.1:7422", "127.0.0.1:7432"]
    six = json.loads((rendered / "six" / "told.json").read_text())
    assert (six["members"], six["peers"]) == (["six"], ["[fd00::1]:7412"])


def test_the_unit_says_how_a_node_lives(rendered: Path) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(rendered / "plain" / "leafdb.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"].split() == ["1", "2", "77"], "docs/operations/trouble.md"
    drain_s = config_of(rendered, "plain").node.drain_timeout_s
    assert int(service["TimeoutStopSec"]) > drain_s + 10
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["ReadWritePaths"] == config_of(rendered, "plain").node.data_dir
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["SystemCallErrorNumber"] == "EPERM", "refused, not killed"


def test_systemd_takes_the_unit(rendered: Path) -> None:
    finished = analyze("verify", str(rendered / "plain" / "leafdb.service"))
    own = [line for line in finished.stderr.splitlines() if "leafdb.service" in line]
    assert finished.returncode == 0, finished.stderr
    assert not own


def test_systemd_finds_it_well_confined(rendered: Path) -> None:
    finished = analyze("security", "--offline=true", "--no-pager", str(rendered / "plain" / "leafdb.service"))
    found = re.search(r"Overall exposure level for leafdb.service: ([\d.]+)", finished.stdout)
    assert found is not None, finished.stdout + finished.stderr
    assert float(found[1]) <= EXPOSURE_MAX, finished.stdout


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze`, where there is one that knows how."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here")
    finished = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    if "nrecognized option" in finished.stderr or "Unknown" in finished.stderr:
        pytest.skip(f"this systemd-analyze does not know {arguments[0]}: {finished.stderr[-200:]}")
    return finished
