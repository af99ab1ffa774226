"""Promises: the plugin within pytest: what a failure prints, the options, and that it leaves everybody else alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import leafdb.client.sync_client
import leafdb.embedded
import leafdb.testing.scenario  # noqa: F401

# A run within the process forgets the modules it has loaded: all that it loads of ours is loaded before.
pytest_plugins = ("pytester",)


@pytest.fixture(autouse=True)
def _plain(pytester: pytest.Pytester) -> None:
    """As in a project with the strictest settings."""
    pytester.makeini("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")


def test_a_failure_prints_its_seed_and_the_traceback_of_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import trio

        async def test_async(leafdb_cluster):
            await trio.sleep(2)
            assert leafdb_cluster.seed == "no such seed"

        def test_sync(leafdb_cluster):
            assert not leafdb_cluster.nodes

        def test_that_meets_a_bug(leafdb_cluster):
            async def bug():
                raise ZeroDivisionError
            leafdb_cluster.world.processes[1].life.nursery.start_soon(bug)
            leafdb_cluster.run(trio.sleep, 1)
        """
    )
    result = pytester.runpytest_inprocess("--leafdb-seed=77")
    result.assert_outcomes(failed=3)  # and no errors at the end of what has failed already
    result.stdout.fnmatch_lines(["leafdb seed: 77", "*assert 77 == 'no such seed'*", "*assert not (1, 2, 3)*"])
    again = r"^nodes: 3, virtual time: \d+\.\d+ s, seed: 77 \(the same run again: --leafdb-seed=77\)$"
    report = result.stdout.str()
    assert len(re.findall(again, report, re.MULTILINE)) == 3
    assert "virtual_loop.py" not in report.partition("_ test_that_meets_a_bug _")[0]


def test_a_seed_may_be_drawn_afresh_and_is_said(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_seed(leafdb_seed):\n    print('drawn', leafdb_seed)")
    result = pytester.runpytest_inprocess("--leafdb-seed=random", "-s")
    result.assert_outcomes(passed=1)
    said = re.search(r"^leafdb seed: (\d+)$", result.stdout.str(), re.MULTILINE)
    drawn = re.search(r"drawn (\d+)", result.stdout.str())
    assert said is not None
    assert drawn is not None
    assert said[1] == drawn[1] != "0"


def test_the_seed_of_a_mark_stays_with_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.leafdb(seed=5)
        def test_marked(leafdb_seed):
            assert leafdb_seed == 5

        def test_plain(leafdb_seed):
            assert leafdb_seed == 6
        """
    )
    pytester.runpytest_inprocess("--leafdb-seed=6").assert_outcomes(passed=2)


def test_a_mark_that_says_something_else_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.leafdb(5)
        def test_unnamed(leafdb_cluster): ...

        @pytest.mark.leafdb(node=5)
        def test_misnamed(leafdb_server): ...
        """
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=2)
    said = "the mark is leafdb(nodes=3, seed=0), with names, not "
    result.stdout.fnmatch_lines([f"*{said}(5,) {{}}", f"*{said}() {{'node': 5}}"])


def test_a_seed_that_is_no_number_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--leafdb-seed=many")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--leafdb-seed is a number or `random`, not 'many'*"])


def test_an_async_test_sees_fixtures_parameters_and_its_class(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def word():
            return "tea"

        @pytest.fixture
        def through(leafdb_cluster):
            return leafdb_cluster

        class TestAll:
            @pytest.mark.parametrize("number", [1, 2])
            async def test_all(self, through, word, number):
                assert (word, number in (1, 2), through.nodes) == ("tea", True, (1, 2, 3))

        async def test_expected(leafdb_cluster):
            pytest.skip("not today")
        """
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=2, skipped=1)


def test_async_tests_without_the_cluster_are_left_to_others(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        async def test_of_nobody(): ...

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
        async def test_of_anyio(leafdb_memory):
            leafdb_memory.ping()
        """
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*async def functions are not natively supported*"])


def test_the_memory_fixture_is_a_new_store_each_time(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import leafdb, pytest

        @pytest.mark.parametrize("time", [1, 2])
        def test_new(leafdb_memory, time):
            assert isinstance(leafdb_memory, leafdb.Client)
            leafdb_memory.create_bucket("b")
            leafdb_memory.bucket("b").put("k", b"v", after=leafdb.BLIND)
        """
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=2)


def test_who_uses_no_fixture_loads_no_node_and_no_loop(pytester: pytest.Pytester) -> None:
    """What the plugin costs in every run of everybody: three small modules of ours, and pytest was there before."""
    pytester.makepyfile(
        """
        import sys

        def test_loaded():
            ours = {name for name in sys.modules if name.split(".")[0] == "leafdb"}
            assert ours == {"leafdb", "leafdb.testing", "leafdb.testing.plugin"}
            assert not {"trio", "cbor2", "pydantic", "lz4"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:anyio", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)


def test_the_names_of_the_package_are_loaded_when_they_are_used() -> None:
    script = """
import sys
import leafdb.testing
assert set(sys.modules) & {"trio", "hypothesis", "pytest"} == set(), "loaded too early"
assert {"Cluster", "Servers", "check_merge"} <= set(dir(leafdb.testing))
leafdb.testing.check_merge
assert "hypothesis" in sys.modules
try:
    leafdb.testing.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_types_hold_in_code_of_users(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed; `make test` installs it")
    page = tmp_path / "test_user.py"
    page.write_text(
        """
from __future__ import annotations

import leafdb
from hypothesis import strategies as st
from leafdb.testing import Cluster, Faults, Servers, check_merge

async def test_one(leafdb_cluster: Cluster, leafdb_faults: Faults) -> None:
    leafdb_faults.partition([1], leafdb_cluster.nodes[1:])
    db: leafdb.AsyncClient = await leafdb_cluster.client(via=leafdb_cluster.nodes[0])
    await db.ping()

def test_two(leafdb_memory: leafdb.Client, leafdb_server: Servers) -> None:
    with leafdb_server.connect() as db:
        reveal_type(db)
    check_merge(lambda one, other: one | other, st.frozensets(st.integers()), codec=None)
    check_merge(larger, st.integers())
    check_merge(larger, st.text())

def larger(one: int, other: int) -> int:
    return max(one, other)
"""
    )
    finished = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(page)],
        capture_output=True, text=True, timeout=240, check=False, cwd=str(tmp_path),
    )  # fmt: skip
    lines = [line for line in finished.stdout.splitlines() if "test_user.py" in line]
    assert len(lines) == 2, finished.stdout
    assert 'Revealed type is "leafdb.client.sync_client.Client"' in lines[0]
    assert "error" in lines[1]
