"""The pytest plugin: fixtures with nodes of leafdb. docs/testing-your-code.md tells users about it.

pytest loads it in every run of everybody who has leafdb installed. So it imports nothing but pytest, changes no test
that does not ask for one of its fixtures, and each fixture imports what it needs when it is asked for.

An async test that has `leafdb_cluster` among its fixtures, directly or through another one, is run inside that cluster,
by us, whatever other plugins for async tests there are: nobody else could run it, for its time is the cluster's.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Iterator
from functools import partial, wraps

import pytest

TYPE_CHECKING = False
"""As typing's own, without the time it takes to import it."""

if TYPE_CHECKING:
    from leafdb.client.sync_client import Client
    from leafdb.testing.faults import Faults
    from leafdb.testing.scenario import Cluster
    from leafdb.testing.servers import Servers

    _Made = pytest.Item | pytest.Collector | list[pytest.Item | pytest.Collector] | None

MARK = "leafdb(nodes=3, seed=0): how many nodes leafdb_cluster and leafdb_server have, and the seed of leafdb_cluster"
NODES_DEFAULT = 3
SEED_DEFAULT = "0"
FRESH = "random"
SEED_BITS = 32

_cluster = pytest.StashKey["Cluster"]()
_failed = pytest.StashKey[bool]()
_seed = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--leafdb-seed`."""
    parser.getgroup("leafdb").addoption(
        "--leafdb-seed",
        default=SEED_DEFAULT,
        metavar="SEED",
        help=f"the seed of every leafdb_cluster: a number ({SEED_DEFAULT} when nothing is said), or `{FRESH}`",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known, and the seed."""
    config.addinivalue_line("markers", MARK)
    said = config.getoption("--leafdb-seed")
    if said == FRESH:
        from random import SystemRandom

        config.stash[_seed] = SystemRandom().getrandbits(SEED_BITS)
        return
    try:
        config.stash[_seed] = int(said)
    except ValueError:
        raise pytest.UsageError(f"--leafdb-seed is a number or `{FRESH}`, not {said!r}") from None


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which seed, when it is not the usual one."""
    return f"leafdb seed: {config.stash[_seed]}" if config.getoption("--leafdb-seed") != SEED_DEFAULT else None


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Generator[None, _Made, _Made]:
    """Make plain tests of the async ones that have a cluster, before any plugin that wants those sees them."""
    made = yield
    functions = [item for item in (made if isinstance(made, list) else [made]) if isinstance(item, pytest.Function)]
    for item in functions:
        if "leafdb_cluster" in item.fixturenames and inspect.iscoroutinefunction(item.obj):
            item.obj = _inside(item, item.obj)
    return made


def _inside(item: pytest.Item, function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(function)
    def run(*args: object, **kwargs: object) -> None:
        __tracebackhide__ = True
        item.stash[_cluster].run(partial(function, *args, **kwargs))

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say how a failure in a cluster is repeated."""
    report = yield
    cluster = item.stash.get(_cluster, None)
    if cluster is not None and report.failed:
        item.stash[_failed] = True
        text = f"nodes: {len(cluster.nodes)}, virtual time: {cluster.time:.3f} s, seed: {cluster.seed}"
        report.sections.append(("leafdb_cluster", f"{text} (the same run again: --leafdb-seed={cluster.seed})"))
    return report


@pytest.fixture
def leafdb_memory() -> Iterator[Client]:
    """A client of one node in memory, in a thread of this process: `leafdb.open(":memory:")`."""
    import leafdb

    with leafdb.open(":memory:") as db:
        yield db


@pytest.fixture
def leafdb_seed(request: pytest.FixtureRequest) -> int:
    """The seed of `leafdb_cluster`: of the mark, else of the command line. Parametrize it to run a test under many."""
    return int(_marked(request, "seed", request.config.stash[_seed]))


@pytest.fixture
def leafdb_cluster(request: pytest.FixtureRequest, leafdb_seed: int) -> Iterator[Cluster]:
    """Nodes in this process on a network in memory, under virtual time. An async test runs inside."""
    from leafdb.testing.scenario import Cluster

    cluster = request.node.stash[_cluster] = Cluster(_marked(request, "nodes", NODES_DEFAULT), leafdb_seed)
    with cluster:
        yield cluster
        cluster.close(checked=not request.node.stash.get(_failed, False))


@pytest.fixture
def leafdb_faults(leafdb_cluster: Cluster) -> Faults:
    """What can go wrong in `leafdb_cluster`."""
    return leafdb_cluster.faults


@pytest.fixture
def leafdb_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A cluster of real processes on free ports of this machine; none is left afterwards."""
    from leafdb.testing.servers import Servers

    with Servers(tmp_path_factory.mktemp("leafdb"), _marked(request, "nodes", NODES_DEFAULT)) as servers:
        yield servers


def _marked(request: pytest.FixtureRequest, name: str, otherwise: int) -> int:
    """What the nearest mark that says it says."""
    for mark in request.node.iter_markers("leafdb"):
        unknown = set(mark.kwargs) - {"nodes", "seed"}
        if mark.args or unknown:
            pytest.fail(
                f"the mark is {MARK.partition(':')[0]}, with names, not {mark.args} {mark.kwargs}", pytrace=False
            )
        if name in mark.kwargs:
            return int(mark.kwargs[name])
    return otherwise
