"""One cluster of real processes for all tests here that leave it as they found it: starting one costs seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.processes import Cluster


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes; killed in the end, whatever happened."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.up()


@pytest.fixture
def cluster(shared_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The shared cluster, whole and settled before each test. Its logs are printed when the test fails."""
    try:
        shared_cluster.heal()
        yield shared_cluster
    finally:
        print(shared_cluster.logs())
