"""`leafdbd` as a process: clear words and codes for whoever starts it wrongly, a clean end for whoever stops it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("structlog")

# A process whose node only waits to be told: everything around the node is real.
STAND_IN = """
import sys, trio
from leafdb.node import main

async def serve(config, *, on_ready, drain, stop):
    on_ready()
    await drain.wait()
    if "stubborn" in config.node.name:
        await stop.wait()
    return 0

real_run = main.run
main.run = lambda config, settings, shard: real_run(config, settings, serve, shard=shard)
sys.exit(main.main(sys.argv[1:]))
"""


def leafdbd(*arguments: str, python: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LEAFDB", "NOTIFY"))}
    return subprocess.run(
        [sys.executable, *python, "-m", "leafdb.node.main", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, **environment},
        check=False,
    )


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The stand-in, ready: it has said so."""
    with subprocess.Popen(
        [sys.executable, "-c", STAND_IN, *arguments], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert wait_for(process, '"ready"'), "it never became ready"
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return line
    return ""


ANY_PORTS = tuple(f"--set=listen.{name}=127.0.0.1:0" for name in ("client", "peer", "http"))


def test_every_wrong_setting_is_listed_and_the_code_is_one(tmp_path: Path) -> None:
    path = tmp_path / "leafdb.toml"
    path.write_text('[node]\nnmae = "x"\n[storage]\nmemtable_bytes = 5\n[listen]\nclient = "0.0.0.0:7411"\n')
    finished = leafdbd("--config", str(path), "--set", "log.level=loud")
    assert finished.returncode == 1
    lines = finished.stderr.splitlines()
    assert all(line.startswith("leafdbd: ") for line in lines)
    assert {line.split()[1].rstrip(":") for line in lines} == {
        "node.nmae",
        "storage.memtable_bytes",
        "listen.client",
        "log.level",
    }
    assert "did you mean node.name?" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_check_says_yes_and_starts_nothing(tmp_path: Path) -> None:
    finished = leafdbd("--check", "--set", f"node.data_dir={tmp_path / 'data'}")
    assert (finished.returncode, finished.stdout) == (0, "the configuration is fine\n")
    assert not (tmp_path / "data").exists()


def test_check_lists_the_shards_of_a_machine() -> None:
    finished = leafdbd("--check", "--set=node.shards=2", "--set=node.name=a", "--set=node.data_dir=d")
    assert finished.returncode == 0
    first, second, fine = finished.stdout.splitlines()
    assert first.startswith("shard 0: a-0 on host a, client 127.0.0.1:7411,")
    assert second.startswith("shard 1: a-1 on host a, client 127.0.0.1:7421,")
    assert fine == "the configuration is fine"


def test_a_shard_that_there_is_not_is_refused() -> None:
    finished = leafdbd("--set=node.shards=2", "--shard", "2")
    assert finished.returncode == 1
    assert "--shard: there is no shard 2 of 2" in finished.stderr


def test_the_parent_of_shards_is_light() -> None:
    """It runs for as long as the machine does, beside processes that need the memory."""
    parent = "leafdb.node.main, leafdb.node.settings, leafdb.node.log_output, leafdb.node.shard_process"
    code = f"import sys, {parent}; print(*sorted(name for name in sys.modules if name.startswith('leafdb.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    heavy = ("leafdb.storage", "leafdb.node.node", "leafdb.ring", "leafdb.transport", "leafdb.wire", "leafdb.client")
    assert [name for name in loaded.stdout.split() if name.startswith(heavy)] == []


def test_check_warns_of_an_open_listener() -> None:
    finished = leafdbd("--check", "--set=listen.peer=10.0.0.1:7412", LEAFDB__AUTH__INSECURE="true")
    assert finished.returncode == 0
    assert "warning: auth.insecure: listen.peer (10.0.0.1:7412)" in finished.stdout


def test_wrong_usage_is_code_two() -> None:
    assert leafdbd("--confg", "x").returncode == 2
    assert leafdbd("--set").returncode == 2


def test_it_does_not_run_without_assertions() -> None:
    finished = leafdbd("--check", python=("-O",))
    assert finished.returncode == 1
    assert "python -O" in finished.stderr


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [
        (b"short", 0o600, "fewer than"),
        (b"x" * 32, 0o644, "chmod 600"),
        (b"x" * 5000, 0o600, "more than"),
        (None, 0, "cannot be read"),
    ],
)
def test_a_secret_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, mode: int, word: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    finished = leafdbd("--check", "--set", f"cluster.secret_file={path}")
    assert finished.returncode == 1
    assert "cluster.secret_file: " in finished.stderr
    assert word in finished.stderr


def test_every_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
        finished = leafdbd(
            f"--set=listen.client=127.0.0.1:{ports[0]}",
            f"--set=listen.peer=127.0.0.1:{ports[1]}",
            "--set=listen.http=127.0.0.1:0",
        )
    assert finished.returncode == 1
    assert f"listen.client: 127.0.0.1:{ports[0]} is taken by another process" in finished.stderr
    assert f"listen.peer: 127.0.0.1:{ports[1]} is taken by another process" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_sigterm_ends_it_cleanly() -> None:
    with started(*ANY_PORTS, "--set=node.name=n1") as process:
        process.send_signal(signal.SIGTERM)
        assert wait_for(process, '"draining"')
        assert process.wait(30) == 0


def test_a_second_signal_does_not_wait_and_hup_reloads_between(tmp_path: Path) -> None:
    path = tmp_path / "leafdb.toml"
    path.write_text('[node]\nname = "stubborn"\n')
    with started("--config", str(path), *ANY_PORTS) as process:
        path.write_text('[node]\nname = "stubborn"\nzone = "elsewhere"\n[log]\nlevel = "debug"\n')
        process.send_signal(signal.SIGHUP)
        assert wait_for(process, '"configuration reloaded"')
        assert "node.zone" in wait_for(process, "wait for a restart")
        path.write_text("[nonsense\n")
        process.send_signal(signal.SIGHUP)
        assert "not TOML" in wait_for(process, "not reloaded")
        process.send_signal(signal.SIGINT)
        assert wait_for(process, '"draining"')
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
