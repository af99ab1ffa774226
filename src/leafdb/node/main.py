"""`leafdbd`: one node as a process of its own.

    leafdbd --config leafdb.toml [--set section.key=value ...] [--check]

Reads the configuration, prepares the process (open files, file permissions, log lines), runs the node and ends with a
code and a sentence (`endings`). The node's own parts do not know that they live in a process: this file does.
"""

from __future__ import annotations

import argparse
import errno
import faulthandler
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING

import trio

from leafdb.config import Address, Config, ListenConfig, described
from leafdb.errors import ConfigError
from leafdb.node import config_rules
from leafdb.node.endings import BUG, CANNOT_RUN, STOPPED, Ending, ending_of
from leafdb.node.logs import Log
from leafdb.node.notify import Notifier
from leafdb.node.secret import read_secret
from leafdb.node.supervisor import Serve, Supervisor

if TYPE_CHECKING:
    from leafdb.node.settings import Loaded

log = Log("process")


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
        sys.stdout.write("".join(f"warning: {warning}\n" for warning in warnings) + "the configuration is fine\n")
        return STOPPED
    log_output.configure(config.log.level, config.log.format, sys.stderr, node=config.node.name)
    for warning in warnings:
        log.warning("configuration", problem=warning)
    return run(config, lambda: _reload(arguments, config))


def run(config: Config, reload: Callable[[], None], serve: Serve | None = None) -> int:
    """Run a node under this configuration until it is told to stop; the exit code."""
    faulthandler.enable()
    os.umask(0o077)
    taken = ports_taken(config.listen)
    if taken:
        return _complain(*taken)
    log.info("starting", version=version(), pid=os.getpid(), data_dir=config.node.data_dir, open_files=_raise_nofile())
    notifier = Notifier(os.environ, pid=os.getpid())
    try:
        if serve is None:
            from leafdb.node.serve import serve as real_serve

            serve = real_serve
        return trio.run(Supervisor(config, serve, notifier, reload).run)
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
    parser.add_argument("--version", action="version", version=f"leafdbd {version()}")
    return parser


def _load(arguments: argparse.Namespace) -> Loaded:
    """The configuration, with the secret's file looked at as well; ConfigError with every problem."""
    from leafdb.node import settings

    loaded = settings.load(
        arguments.config, environment=os.environ, flags=arguments.set, host_name=socket.gethostname()
    )
    if loaded.config.cluster.secret_file:
        read_secret(loaded.config.cluster.secret_file)
    return loaded


def _reload(arguments: argparse.Namespace, running: Config) -> None:
    """Take over what may change while running and say what may not."""
    from leafdb.node import log_output

    try:
        wanted = _load(arguments).config
    except ConfigError as error:
        log.error("configuration not reloaded", problems=list(error.problems or (str(error),)))
        return
    waiting = [
        entry.path
        for entry in described()
        if not entry.setting.reloadable
        and getattr(getattr(wanted, entry.section), entry.attribute)
        != getattr(getattr(running, entry.section), entry.attribute)
    ]
    log_output.set_level(wanted.log.level)
    log.info("configuration reloaded", level=wanted.log.level)
    if waiting:
        log.warning("these settings wait for a restart", settings=waiting)


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
