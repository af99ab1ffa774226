"""One installation of the collection for all tests here."""

from __future__ import annotations

import pytest

from support.playing import Ansible, need_ansible


@pytest.fixture(scope="session")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> Ansible:
    """The collection, installed from what `ansible-galaxy collection build` makes."""
    need_ansible()
    return Ansible(tmp_path_factory.mktemp("ansible")).install()
