"""Promises: on bare Debian hosts the playbooks make a working, watched cluster, a second run of theirs changes
nothing, and restart, upgrade, grow, replace, shrink and back up while clients lose nothing and see no request fail.

The hosts are made by `support.nspawn`, which needs root, a Debian mirror the first time, and minutes. So this runs
where it is asked for: LEAFDB_TEST_BED names a directory in which the root file system is kept from one run to the
next. The tests are one story, told in order. LEAFDB_TEST_BED_OLD names a wheel of an earlier commit to upgrade from;
otherwise one that differs from this one in nothing but its digest is made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import leafdb
from leafdb.client.sync_client import Client
from support import nspawn
from support.playing import Ansible, Played
from support.processes import eventually
from support.source_tree import ROOT
from support.traffic import Traffic

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1_800)]

CACHE = os.environ.get("LEAFDB_TEST_BED", "")
OLD_WHEEL = os.environ.get("LEAFDB_TEST_BED_OLD", "")
NAMES = ("a", "b", "c", "d", "e")
FOUNDERS = ("a", "b", "c")
PLAY_S = 1_200.0
BUCKET = "carts"


class Site:
    """The hosts, an inventory, and who plays."""

    def __init__(self, bed: nspawn.Bed, ansible: Ansible, directory: Path, wheels: Path) -> None:
        self.bed = bed
        self.wheels = wheels
        self.directory = directory
        self.members: list[str] = list(FOUNDERS)
        self._ansible = ansible
        self._inventory = directory / "hosts.yml"
        self.variables: dict[str, Any] = {
            "ansible_user": "root", "ansible_ssh_private_key_file": str(bed.key),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": " ".join(bed.ssh_options()), "node_cluster_name": "prod",
            "node_secret": "a-secret-of-at-least-thirty-two-characters", "node_wheel_directory": str(wheels),
            "node_build_directory": str(directory / "built"), "node_tls": False,
            "node_insecure": True, "node_drain_timeout_s": 10,
        }  # fmt: skip

    @property
    def url(self) -> str:
        """Every member."""
        return "leafdb://" + ",".join(f"{self.bed.hosts[name].address}:7411" for name in self.members)

    def connect(self) -> Client:
        """A client of the cluster, from this machine."""
        return leafdb.connect(self.url, timeout=20.0)

    def play(self, name: str, *arguments: str, hosts: list[str] | None = None) -> Played:
        """A playbook, on the members and whoever comes; its figures are printed."""
        addresses = {
            host: {
                "ansible_host": self.bed.hosts[host].address,
                "node_address": self.bed.hosts[host].address,
                "node_zone": f"zone-{host}",
            }
            for host in hosts or self.members
        }
        groups = {
            "leafdb": {"hosts": addresses},
            "leafdb_monitoring": {"hosts": {self.members[0]: None}},
            "all": {"vars": self.variables},
        }
        self._inventory.write_text(yaml.safe_dump(groups))
        begun = time.monotonic()
        played = self._ansible.play(
            "--inventory", str(self._inventory), f"leafdb.leafdb.{name}", *arguments, timeout_s=PLAY_S
        )
        print(f"{name} {' '.join(arguments)}: {time.monotonic() - begun:.0f} s, {dict(played.hosts)}")
        assert played.code == 0, played.text
        return played

    def leafdb(self, *arguments: str, on: str = "") -> str:
        """A command on a machine, at its own node."""
        host = on or self.members[0]
        node = f"{self.bed.hosts[host].address}:7411"
        return self.bed.run(host, "/opt/leafdb/current/bin/leafdb", "--node", node, *arguments)

    def names(self) -> list[str]:
        """The members, as the cluster knows them."""
        listed = json.loads(self.leafdb("-o", "json", "node", "list"))["items"]
        return sorted(str(each["name"]) for each in listed if each["state"] == "alive" or each["state"] == "serving")

    def started(self, name: str) -> str:
        """When a machine's node was started last, and how often systemd did so unasked."""
        return self.bed.run(name, "systemctl", "show", "leafdb", "--property=ExecMainStartTimestampMonotonic,NRestarts")

    def release(self, name: str) -> str:
        """What a machine's node was started with."""
        return self.bed.run(name, "cat", "/run/leafdb/deployed").split()[1]


@pytest.fixture(scope="module")
def cache() -> Path:
    """Where the root file system is kept. Skips the story, with the reason, where it cannot be told."""
    if not CACHE:
        pytest.skip("minutes of real hosts: LEAFDB_TEST_BED=DIR runs it, as root; DIR keeps the root file system")
    if why := nspawn.missing():
        pytest.skip(why)
    return Path(CACHE).resolve()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """What hosts without a package index are installed from."""
    kept = cache / "wheels"
    if not kept.exists():
        build(cache / "wheels.part", f"{ROOT}[server,cli]")
        (cache / "wheels.part").rename(kept)
    directory = tmp_path_factory.mktemp("site") / "wheels"
    shutil.copytree(kept, directory, ignore=shutil.ignore_patterns("leafdb-*"))
    build(directory, "--no-deps", str(ROOT))
    return directory


def build(directory: Path, *what: str) -> None:
    """Wheels of it, into a directory."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(directory), *what]
    made = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="module")
def site(cache: Path, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[Site]:
    """Five bare hosts."""
    root = nspawn.root_of(cache)
    # Layers want a file system that can be one: not another overlay, as /tmp may be.
    directory = cache / f"run-{os.getpid()}"
    try:
        with nspawn.Bed(directory, root, NAMES) as bed:
            yield Site(bed, ansible, tmp_path_factory.mktemp("site"), wheels)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def new_wheel(wheels: Path) -> Path:
    """The wheel of this checkout."""
    (found,) = wheels.glob("leafdb-*.whl")
    return found


def old_wheel(site: Site) -> Path:
    """An earlier one."""
    if OLD_WHEEL:
        return Path(OLD_WHEEL).resolve()
    made = site.directory / new_wheel(site.wheels).name
    with zipfile.ZipFile(new_wheel(site.wheels)) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for each in source.infolist():
            target.writestr(each, source.read(each))
        target.comment = b"earlier"
    return made


def test_three_bare_hosts_become_a_cluster(site: Site) -> None:
    site.variables["node_wheel"] = str(old_wheel(site))
    site.play("deploy")
    assert site.names() == sorted(FOUNDERS)
    for name in FOUNDERS:
        assert site.bed.run(name, "systemctl", "is-active", "leafdb").strip() == "active"
        assert "NRestarts=0" in site.started(name)
        assert f"serving as {name}" in site.bed.run(name, "systemctl", "show", "leafdb", "--property=StatusText")
    with site.connect() as client:
        client.create_bucket(BUCKET)
        client.bucket(BUCKET).put("first", b"tea", after=leafdb.BLIND)


def test_a_second_run_changes_nothing(site: Site) -> None:
    before = [site.started(name) for name in FOUNDERS]
    assert site.play("deploy").changed == 0
    assert site.play("deploy", "--check").changed == 0
    assert [site.started(name) for name in FOUNDERS] == before


def test_the_cluster_is_watched(site: Site) -> None:
    """Prometheus on one of the hosts gets an answer from each."""
    page = f"http://{site.bed.hosts['a'].address}:9090/api/v1/targets?state=active"

    def all_up() -> bool:
        with urllib.request.urlopen(page, timeout=5.0) as answer:
            targets = json.loads(answer.read())["data"]["activeTargets"]
        return len(targets) == len(FOUNDERS) and all(each["health"] == "up" for each in targets)

    eventually("every node is scraped", all_up, 60.0)


def test_a_setting_comes_to_one_node_after_the_other(site: Site) -> None:
    before = [site.started(name) for name in FOUNDERS]
    site.variables["node_settings"] = {"storage": {"memtable_bytes": "8MiB"}}
    with site.connect() as client, Traffic(client, BUCKET, prefix="setting") as traffic:
        site.play("deploy")
    traffic_ended(site, traffic)
    assert all(old != new for old, new in zip(before, map(site.started, FOUNDERS), strict=True))
    assert site.play("deploy").changed == 0


def test_a_rolling_restart_is_not_noticed(site: Site) -> None:
    before = [site.started(name) for name in FOUNDERS]
    with site.connect() as client, Traffic(client, BUCKET, prefix="restart") as traffic:
        site.play("rolling_restart")
    traffic_ended(site, traffic)
    assert all(old != new for old, new in zip(before, map(site.started, FOUNDERS), strict=True))


def test_a_rolling_upgrade_is_not_noticed(site: Site) -> None:
    old = {site.release(name) for name in FOUNDERS}
    site.variables["node_wheel"] = str(new_wheel(site.wheels))
    with site.connect() as client, Traffic(client, BUCKET, prefix="upgrade") as traffic:
        site.play("rolling_upgrade")
    traffic_ended(site, traffic)
    new = {site.release(name) for name in FOUNDERS}
    assert len(old) == len(new) == 1
    assert old != new
    assert site.play("rolling_upgrade").changed == 0
    assert site.play("deploy").changed == 0, "both playbooks mean the same by what should run"


def test_a_host_joins(site: Site) -> None:
    wanted = [*FOUNDERS, "d"]
    with site.connect() as client, Traffic(client, BUCKET, prefix="join") as traffic:
        site.play("add_node", "--extra-vars", "leafdb_nodes=d", hosts=wanted)
    traffic_ended(site, traffic)
    site.members = wanted
    assert site.names() == sorted(wanted)
    assert site.play("add_node", "--extra-vars", "leafdb_nodes=d").changed == 0
    assert site.play("deploy").hosts["d"].changed == 0


def test_a_backup_is_made_and_the_oldest_go(site: Site) -> None:
    site.variables["node_backups_kept"] = 1
    for name in ("monday", "tuesday"):
        site.play("backup", "--extra-vars", f"node_backup_name={name}")
    listed = json.loads(site.leafdb("-o", "json", "backup", "list", "/var/backups/leafdb"))["items"]
    assert [each["name"] for each in listed] == ["tuesday"]
    assert site.play("backup", "--extra-vars", "node_backup_name=tuesday").changed == 0


def test_a_dead_host_is_replaced(site: Site) -> None:
    """Its machine is off. Nobody asks it anything, and the play does not wait for it for long."""
    site.bed.cut_power("b")
    with site.connect() as client, Traffic(client, BUCKET, prefix="replace") as traffic:
        site.play("replace_node", "--extra-vars", "leafdb_old=b leafdb_new=e", hosts=["a", "b", "c", "d", "e"])
    site.members = ["a", "c", "d", "e"]
    traffic_ended(site, traffic)
    assert site.names() == site.members


def test_a_host_leaves(site: Site) -> None:
    with site.connect() as client, Traffic(client, BUCKET, prefix="leave") as traffic:
        site.play("remove_node", "--extra-vars", "leafdb_nodes=d")
    site.members = ["a", "c", "e"]
    traffic_ended(site, traffic)
    assert site.names() == site.members
    unit = site.bed.run("d", "systemctl", "show", "leafdb", "--property=ActiveState,UnitFileState").split()
    assert "UnitFileState=disabled" in unit
    assert "ActiveState=active" not in unit, "77: no member any more"


def traffic_ended(site: Site, traffic: Traffic) -> None:
    """Nothing failed, and everything is there."""
    print(traffic.figures())
    with site.connect() as client:
        traffic.check(client)
