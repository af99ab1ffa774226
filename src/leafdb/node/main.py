"""`leafdbd`: one node as a process of its own.

    leafdbd --config leafdb.toml [--set section.key=value ...] [--check]

Reads the configuration, prepares the process (open files, file permissions, log lines), runs the node and ends with a
code and a sentence (`endings`). The node's own parts do not know that they live in a process: this file does.

With `node.shards` above 1 this process is the parent of as many others (`shard_parent`), each started with the same
arguments and `--shard I`: the same configuration, of which it is one node (`shards`).
"""

from __future__ import annotations

import argparse
import errno
import faulthandler
import os
import resource
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.config import Address, Config, ListenConfig
from leafdb.errors import ConfigError
from leafdb.node import config_rules, shards
from leafdb.node.bell import Bell
from leafdb.node.endings import BUG, CANNOT_RUN, STOPPED, Ending, ending_of
from leafdb.node.logs import Log, set_level
from leafdb.node.notify import Notifier
from leafdb.node.secret import read_secret
from leafdb.node.settings_in_force import Read, SettingsInForce
from leafdb.node.supervisor import Serve, Supervisor

if TYPE_CHECKING:
    from leafdb.node.settings import Loaded

STDIN: Final = 0

log: Log = Log("process")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    arguments = _parser().parse_args(argv)
    if not __debug__:
        return _complain("leafdbd does not run under python -O: assertions are how it stops itself when it is wrong")
    try:
        from leafdb.node import log_output

        loaded = _load(arguments)
    except ModuleNotFoundError as error:
        return _complain(f"{error.name} is missing: install leafdb[server]")
    except ConfigError as error:
        return _complain(*(error.problems or (str(error),)))
    config = loaded.config
    warnings = config_rules.warnings(config)
    if arguments.check:
        lines = [
            *(f"warning: {warning}" for warning in warnings),
            *shards.overview(config),
            "the configuration is fine",
        ]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        return STOPPED
    log_output.configure(config.log.level, config.log.format, sys.stderr, node=config.node.name)
    if arguments.shard is None:
        for warning in warnings:
            log.warning("configuration", problem=warning)
    settings = SettingsInForce(Read(config, loaded.origins), partial(_read, arguments))
    settings.follow(lambda config: set_level(config.log.level))
    if config.node.shards > 1:
        return run_shards(config, settings.reload, [*(sys.argv[1:] if argv is None else argv)])
    return run(config, settings, shard=arguments.shard is not None)


def run(config: Config, settings: SettingsInForce, serve: Serve | None = None, *, shard: bool = False) -> int:
    """Run a node under this configuration until it is told to stop; the exit code. A shard takes orders from stdin."""
    notifier = Notifier(os.environ, pid=os.getpid())
    bell = Bell()

    def reload_all() -> None:
        settings.reload()
        bell.ring()

    async def live() -> int:
        orders = partial(trio.lowlevel.FdStream, STDIN) if shard else None
        serving = serve or _real_serve(bell, settings)
        return await Supervisor(config, serving, notifier, reload_all, orders).run()

    return _live(config, (config,), notifier, live)


def _real_serve(bell: Bell, settings: SettingsInForce) -> Serve:
    from leafdb.node.serve import serve

    return partial(serve, bell=bell, settings=settings)


def run_shards(config: Config, reload: Callable[[], None], arguments: Sequence[str]) -> int:
    """Run the shards of this configuration until they are told to stop; the exit code, of the worst.

    Args:
        arguments: of this process; a shard's are the same and its number.
    """
    parts = [shards.shard_of(config, number) for number in range(config.node.shards)]
    notifier = Notifier(os.environ, pid=os.getpid())
    # What a file says later of the number of shards waits for a restart of all of them.
    fixed = f"--set=node.shards={config.node.shards}"
    command = [sys.executable, "-m", "leafdb.node.main", *arguments, fixed, "--shard"]

    async def live() -> int:
        from leafdb.node.shard_parent import ShardParent
        from leafdb.node.shard_process import Ears, data_held, spawner

        with data_held(config.node.data_dir) as lock, closing(Ears()) as ears:
            return await ShardParent(
                [part.node.name for part in parts],
                spawner(command, os.environ, ears, lock),
                notifier,
                reload,
                listen=ears.listen,
                drain_timeout_s=config.node.drain_timeout_s,
            ).run()

    return _live(config, parts, notifier, live)


def _live(
    config: Config, parts: Sequence[Config], notifier: Notifier, life: Callable[[], Coroutine[Any, Any, int]]
) -> int:
    """A life in a process that is prepared for it, to its end, which is explained."""
    faulthandler.enable()
    os.umask(0o077)
    problems = [*_misplaced(config), *(problem for part in parts for problem in ports_taken(part.listen))]
    if problems:
        return _complain(*problems)
    log.info("starting", version=version(), pid=os.getpid(), data_dir=config.node.data_dir, open_files=_raise_nofile())
    try:
        return trio.run(life)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        ending = ending_of(error, config)
    notifier.status(ending.message)
    _say(ending)
    return ending.code


def version() -> str:
    """The installed version."""
    try:
        return metadata.version("leafdb")
    except metadata.PackageNotFoundError:
        return "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leafdbd", description="Run one node of a leafdb cluster.", allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file; without it only defaults, environment and --set")
    parser.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help="a setting, over file and environment"
    )
    parser.add_argument("--check", action="store_true", help="check the configuration, say what is wrong, and end")
    parser.add_argument("--shard", metavar="I", type=int, help=argparse.SUPPRESS)  # by the parent of shards, to a shard
    parser.add_argument("--version", action="version", version=f"leafdbd {version()}")
    return parser


def _load(arguments: argparse.Namespace) -> Loaded:
    """The configuration, a shard's own where this is one, with the files it names looked at as well; ConfigError with
    every problem."""
    from leafdb.node import settings

    loaded = settings.load(
        arguments.config, environment=os.environ, flags=arguments.set, host_name=socket.gethostname()
    )
    if loaded.config.cluster.secret_file:
        read_secret(loaded.config.cluster.secret_file)
    if loaded.config.tls.cert_file:
        from leafdb.node import tls

        tls.try_files(loaded.config)
    if arguments.shard is None:
        return loaded
    try:
        return replace(loaded, config=shards.shard_of(loaded.config, arguments.shard))
    except ValueError as error:
        raise ConfigError(f"--shard: {error}") from None


def _misplaced(config: Config) -> list[str]:
    """Why this directory is not where this number of shards has its data, if it is not."""
    data_dir, count = config.node.data_dir, config.node.shards
    if count == 1 and os.path.exists(shards.shard_dir(data_dir, 0)):
        return [f"node.shards: {data_dir} holds the data of shards: say how many there are"]
    if count > 1 and os.path.exists(os.path.join(data_dir, "IDENTITY")):
        return [
            f"node.shards: {data_dir} holds the data of a node without shards. Shards are members of their own: give "
            "them another directory, let them join, and let that node leave (docs/operations/shards.md)"
        ]
    if os.path.exists(shards.shard_dir(data_dir, count)) and count > 1:
        log.warning("shards are left out", data_dir=shards.shard_dir(data_dir, count), shards=count)
    return []


def _read(arguments: argparse.Namespace) -> Read:
    loaded = _load(arguments)
    return Read(loaded.config, loaded.origins)


def ports_taken(listen: ListenConfig) -> list[str]:
    """Which listeners cannot be had, each with the reason. Asked before anything is opened, so that all are named."""
    problems = []
    for name, address in (("client", listen.client), ("peer", listen.peer), ("http", listen.http)):
        try:
            _try_bind(address)
        except OSError as error:
            reason = "is taken by another process" if error.errno == errno.EADDRINUSE else f"{error.strerror or error}"
            problems.append(f"listen.{name}: {address} {reason}")
    return problems


def _try_bind(address: Address) -> None:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, target = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(target)
        probe.listen(1)


def _raise_nofile() -> int:
    """Let this process open as many files as the system lets it; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


def _complain(*problems: str) -> int:
    for problem in problems:
        sys.stderr.write(f"leafdbd: {problem}\n")
    return CANNOT_RUN


def _say(ending: Ending) -> None:
    if ending.code == BUG:
        log.error("failed", message=ending.message, traceback=ending.details)
    for line in ending.message.splitlines():
        sys.stderr.write(f"leafdbd: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
