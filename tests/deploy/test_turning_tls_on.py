"""Promises: a cluster of an earlier release without TLS and accounts is upgraded, moved to TLS and brought under
accounts by the playbooks alone, one node after the other, while its clients lose nothing and see no request fail.

Asked for, like `test_bare_hosts.py`. LEAFDB_TEST_BED_BEFORE names a wheel of a commit that has neither.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.bare_site import IN_THE_CLEAR, Site, as_if_earlier, wheel_in
from support.nspawn import Bed
from support.playing import Ansible

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1_800)]

OLD_WHEEL = os.environ.get("LEAFDB_TEST_BED_BEFORE", "")
FOUNDERS = ("a", "b", "c")


@pytest.fixture(scope="module")
def site(bed: Bed, ansible: Ansible, tmp_path_factory: pytest.TempPathFactory, bed_wheels: Path) -> Site:
    """Three bare hosts on a network that is trusted."""
    made = Site(bed, ansible, tmp_path_factory.mktemp("site"), bed_wheels, FOUNDERS)
    made.sealed = False
    made.variables |= IN_THE_CLEAR
    return made


def test_a_cluster_in_the_clear(site: Site) -> None:
    new = wheel_in(site.wheels)
    site.variables["node_wheel"] = str(Path(OLD_WHEEL).resolve() if OLD_WHEEL else as_if_earlier(new, site.directory))
    site.play("deploy")
    site.admit()
    assert site.play("deploy").changed == 0


def test_the_release_that_has_tls_comes_unnoticed(site: Site) -> None:
    site.variables["node_wheel"] = str(wheel_in(site.wheels))
    site.play_under_load("rolling_upgrade")
    assert len({site.release(name) for name in FOUNDERS}) == 1


def test_tls_is_spoken_by_whoever_can(site: Site) -> None:
    site.variables |= {"node_tls": True, "node_settings": {"tls": {"optional": True}}}
    site.play_under_load("deploy")
    assert "tls.optional" in site.leafdb("status")
    assert all(map(site.shown, FOUNDERS))


def test_then_by_everybody_who_also_logs_in(site: Site) -> None:
    """Clients have changed to `leafdbs://` and a login by then."""
    site.sealed = True
    site.admit()
    site.variables |= {"node_insecure": False, "node_settings": {}}
    site.play_under_load("deploy")
    assert site.play("deploy").changed == 0
    assert "tls.optional" not in site.leafdb("status")
