"""Promises: on bare Debian hosts the playbooks make a working, watched cluster that speaks TLS and asks who comes; a
second run of theirs changes nothing; certificates, settings, releases and members change, and nodes restart, while
clients lose nothing and see no request fail. A rehearsal fails nowhere and does nothing.

The hosts are made by `support.nspawn`, which needs root, a Debian mirror the first time, and minutes. So this runs
where it is asked for: LEAFDB_TEST_BED names a directory in which the root file system is kept from one run to the
next. The tests are one story, told in order. LEAFDB_TEST_BED_OLD names a wheel of an earlier commit to upgrade from;
otherwise one that differs from this one in nothing but its digest is made.
"""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from leafdb_cli.authority import certificates_in, fingerprint
from support.bare_site import Site, as_if_earlier, wheel_in
from support.nspawn import Bed
from support.playing import Ansible
from support.processes import eventually

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1_800)]

OLD_WHEEL = os.environ.get("LEAFDB_TEST_BED_OLD", "")
FOUNDERS = ("a", "b", "c")
ALL = [*FOUNDERS, "d", "e"]


@pytest.fixture(scope="module")
def site(bed: Bed, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory, bed_wheels: Path) -> Site:
    """Five bare hosts, three of which are to be a cluster."""
    return Site(bed, ansible, tmp_path_factory.mktemp("site"), bed_wheels, FOUNDERS)


def prometheus(site: Site, page: str) -> Any:
    """An answer of the one that the plays have started."""
    url = f"http://{site.bed.hosts['a'].address}:9090/api/v1/{page}"
    with urllib.request.urlopen(url, timeout=5.0) as answer:
        return json.loads(answer.read())["data"]


def test_a_rehearsal_on_bare_hosts_does_nothing(site: Site) -> None:
    new = wheel_in(site.wheels)
    site.variables["node_wheel"] = str(Path(OLD_WHEEL).resolve() if OLD_WHEEL else as_if_earlier(new, site.directory))
    assert site.play("deploy", "--check", "--diff").changed > 0
    assert not site.ca.exists()
    for name in FOUNDERS:
        assert not site.bed.run(name, "ls /opt /etc | grep leafdb || true")


def test_three_bare_hosts_become_a_cluster(site: Site) -> None:
    site.play("deploy")
    assert site.names() == sorted(FOUNDERS)
    for name in FOUNDERS:
        assert site.bed.run(name, "systemctl", "is-active", "leafdb").strip() == "active"
        assert "NRestarts=0" in site.started(name)
        assert f"serving as {name}" in site.bed.run(name, "systemctl", "show", "leafdb", "--property=StatusText")
        assert not site.bed.run(name, "find", "/", "-xdev", "-name", "ca.key"), "the CA's key stays where it is"
        assert site.shown(name) == on_the_controller(site, name)
    site.admit()


def test_a_second_run_changes_nothing(site: Site) -> None:
    before = [site.started(name) for name in FOUNDERS]
    assert site.play("deploy").changed == 0
    assert site.play("deploy", "--check", "--diff").changed == 0
    assert [site.started(name) for name in FOUNDERS] == before


def test_the_cluster_is_watched(site: Site) -> None:
    """Prometheus on one of the hosts gets an answer from each, and judges by the rules."""

    def all_up() -> bool:
        targets = prometheus(site, "targets?state=active")["activeTargets"]
        return len(targets) == len(FOUNDERS) and all(each["health"] == "up" for each in targets)

    eventually("every node is scraped", all_up, 60.0)
    rules = [rule for group in prometheus(site, "rules?type=alert")["groups"] for rule in group["rules"]]
    assert len(rules) > 10
    eventually(
        "every rule is judged without error",
        lambda: all(rule["health"] == "ok" for group in prometheus(site, "rules")["groups"] for rule in group["rules"]),
        60.0,
    )


def test_certificates_are_exchanged_while_nodes_run(site: Site) -> None:
    """Every node shows another certificate afterwards, none was restarted, and nobody noticed."""
    before, shown = [site.started(name) for name in FOUNDERS], [site.shown(name) for name in FOUNDERS]
    site.play_under_load("rotate_certificates")
    assert [site.started(name) for name in FOUNDERS] == before
    for name, old in zip(FOUNDERS, shown, strict=True):
        assert site.shown(name) == on_the_controller(site, name) != old
    assert site.play("deploy").changed == 0


def test_a_setting_comes_to_one_node_after_the_other(site: Site) -> None:
    before = [site.started(name) for name in FOUNDERS]
    site.variables["node_settings"] = {"storage": {"memtable_bytes": "8MiB"}}
    site.play_under_load("deploy")
    assert all(old != new for old, new in zip(before, map(site.started, FOUNDERS), strict=True))
    assert site.play("deploy").changed == 0


def test_a_rolling_upgrade_is_not_noticed(site: Site) -> None:
    old = {site.release(name) for name in FOUNDERS}
    site.variables["node_wheel"] = str(wheel_in(site.wheels))
    site.play("rolling_upgrade", "--check")
    assert {site.release(name) for name in FOUNDERS} == old
    site.play_under_load("rolling_upgrade")
    new = {site.release(name) for name in FOUNDERS}
    assert len(old) == len(new) == 1
    assert old != new
    assert site.play("rolling_upgrade").changed == 0
    assert site.play("deploy").changed == 0, "both playbooks mean the same by what should run"


def test_a_rolling_restart_is_not_noticed(site: Site) -> None:
    before = [site.started(name) for name in FOUNDERS]
    site.play_under_load("rolling_restart")
    assert all(old != new for old, new in zip(before, map(site.started, FOUNDERS), strict=True))


def test_a_host_joins(site: Site) -> None:
    wanted = [*FOUNDERS, "d"]
    site.play("add_node", "--check", "--extra-vars", "leafdb_nodes=d", hosts=wanted)
    assert site.names() == sorted(FOUNDERS)
    site.play_under_load("add_node", "--extra-vars", "leafdb_nodes=d", hosts=wanted)
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
    site.play_under_load("replace_node", "--extra-vars", "leafdb_old=b leafdb_new=e", hosts=ALL)
    site.members = ["a", "c", "d", "e"]
    assert site.names() == site.members


def test_a_host_leaves(site: Site) -> None:
    site.play("remove_node", "--check", "--extra-vars", "leafdb_nodes=d")
    assert "d" in site.names()
    site.play_under_load("remove_node", "--extra-vars", "leafdb_nodes=d")
    site.members = ["a", "c", "e"]
    assert site.names() == site.members
    unit = site.bed.run("d", "systemctl", "show", "leafdb", "--property=ActiveState,UnitFileState").split()
    assert "UnitFileState=disabled" in unit
    assert "ActiveState=active" not in unit, "77: no member any more"


def on_the_controller(site: Site, name: str) -> str:
    """The fingerprint of the certificate a node should have."""
    return fingerprint(certificates_in(site.ca / f"{name}.crt")[0])
