"""One installation of the collection for all tests here, and bare hosts for those that tell a story on them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import nspawn
from support.bare_site import wheels_of_this_checkout
from support.playing import Ansible, need_ansible

CACHE = os.environ.get("LEAFDB_TEST_BED", "")
NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="session")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> Ansible:
    """The collection, installed from what `ansible-galaxy collection build` makes."""
    need_ansible()
    return Ansible(tmp_path_factory.mktemp("ansible")).install()


@pytest.fixture(scope="session")
def bed_cache() -> Path:
    """Where the root file system is kept. Skips the story, with the reason, where it cannot be told."""
    if not CACHE:
        pytest.skip("minutes of real hosts: LEAFDB_TEST_BED=DIR runs it, as root; DIR keeps the root file system")
    if why := nspawn.missing():
        pytest.skip(why)
    return Path(CACHE).resolve()


@pytest.fixture(scope="session")
def bed_wheels(tmp_path_factory: pytest.TempPathFactory, bed_cache: Path) -> Path:
    """What hosts without a package index are installed from."""
    directory = tmp_path_factory.mktemp("bed") / "wheels"
    wheels_of_this_checkout(bed_cache, directory)
    return directory


@pytest.fixture(scope="module")
def bed(bed_cache: Path) -> Iterator[nspawn.Bed]:
    """Five bare hosts, for one story."""
    root = nspawn.root_of(bed_cache)
    # Layers want a file system that can be one: not another overlay, as /tmp may be.
    directory = bed_cache / f"run-{os.getpid()}"
    try:
        with nspawn.Bed(directory, root, NAMES) as made:
            yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)
