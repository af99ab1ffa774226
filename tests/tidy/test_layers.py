"""Who may import whom, and what each kind of folder may touch (docs/architecture.md).

A row imports only rows beneath it, siblings in a row are strangers; pure folders decide without time, chance, files or
sockets; only vfs opens the store's files; there are no import cycles and no relative imports. Read from the syntax
tree, so that a lazy or a typing-only import counts as well.
"""

from __future__ import annotations

import ast
import sys

import pytest

from support.source_tree import Import, Module, dotted, imports_of, modules, shipped

ROW_0 = ("types", "errors", "limits", "config", "explanation")

# What a package may import of leafdb besides itself. A name with a dot is that one module only.
ALLOWED: dict[str, tuple[str, ...]] = {
    "types": (),
    "limits": (),
    "explanation": (),
    "errors": ("types", "limits", "explanation"),
    "config": ("types", "limits", "errors"),
    "codec": ROW_0,
    "model": (*ROW_0, "codec"),
    "ring": (*ROW_0, "codec", "model"),
    "membership": (*ROW_0, "codec", "model"),
    "quorum": (*ROW_0, "codec", "model"),
    "merkle": (*ROW_0, "codec", "model"),
    "hints": (*ROW_0, "codec", "model"),
    "consensus": (*ROW_0, "codec", "model"),
    "vfs": (*ROW_0, "codec", "model"),
    "wire": (*ROW_0, "codec", "model", "*.messages"),
    "storage": (*ROW_0, "codec", "vfs"),
    "backup": (*ROW_0, "codec", "model", "ring", "hints", "vfs", "storage"),
    "transport": (*ROW_0, "codec", "wire"),
    "node": (
        *ROW_0, "codec", "model", "ring", "membership", "quorum", "merkle", "hints", "consensus", "vfs", "wire",
        "storage", "transport",
    ),
    "client": (*ROW_0, "codec", "wire", "ring", "model"),
}  # fmt: skip
ABOVE_ALL = ("embedded", "testing", "sim")  # row 6: anything below
BESIDE = {"sim": "testing"}  # the simulation runs testing's clusters (docs/decisions/0006)
FACE = "leafdb"  # leafdb/__init__.py re-exports the client and the embedded node

CLI_ALLOWED = (*ROW_0, "client")
CLI_LAZY = (
    "testing",
    "sim",
    "storage",
    "backup",
    "ring",
    "model",
    "vfs",
    "codec",
    "node.settings",
    "node.metric_tables",
)

PURE = ("codec", "model", "ring", "membership", "quorum", "merkle", "hints", "consensus", "wire", *ROW_0)
PURE_MODULES = ("leafdb.client.routing", "leafdb.client.retry")
DISK = ("vfs", "storage")

LOOPS = {"trio", "anyio", "asyncio", "outcome"}
CHANCE = {"uuid", "secrets"}
WORLD = {"os", "pathlib", "shutil", "tempfile", "fcntl", "resource", "signal", "mmap"}
NETWORK = {"socket", "ssl", "selectors", "http", "urllib"}
THREADS = {"threading", "subprocess", "multiprocessing", "concurrent", "queue"}
FORBIDDEN_IN_PURE = LOOPS | CHANCE | WORLD | NETWORK | THREADS | {"time"}
FORBIDDEN_IN_STORAGE = LOOPS | CHANCE | WORLD | NETWORK | THREADS | {"time"}
FORBIDDEN_IN_VFS = LOOPS | CHANCE | NETWORK | {"subprocess", "multiprocessing", "time"}
FORBIDDEN_IN_NODE = {"uuid", "anyio", "asyncio", "time", "pathlib", "shutil", "tempfile", "os"}

# Files whose business is the very thing their folder does without.
EXCUSED: dict[str, set[str]] = {
    "leafdb.storage.worker": {"os", "subprocess", "threading", "queue", "time"},  # the worker is a process
    "leafdb.storage.worker_cores": {"os"},  # where the kernel puts it
    "leafdb.storage.block_cache": {"threading"},  # a lock: readers in threads share it
    "leafdb.storage.value_reader": {"threading"},  # likewise
    "leafdb.wire.sealed": {"ssl"},  # TLS over memory BIOs: bytes in, bytes out, no socket
    "leafdb.wire.tls_fault": {"ssl"},  # the words for its errors
    "leafdb.storage.executor": {"threading", "queue", "concurrent"},  # the engine's threads
    "leafdb.client.event_loop": {"asyncio", "trio"},  # which of the two loops runs
    "leafdb.client.asyncio_connection": {"asyncio"},  # each loop's own way to watch a socket
    "leafdb.client.trio_connection": {"trio"},
    "leafdb.node.main": {"os", "time", "pathlib"},  # the process: limits, the real clock
    "leafdb.node.real_world": {"os", "time", "pathlib"},  # the clock, the entropy, the disk, handed to a node
    "leafdb.node.secret": {"os"},  # reads the secret's file
    "leafdb.node.settings": {"os", "pathlib"},  # reads the configuration file and the environment
}
OPENS_FILES = (
    "leafdb.node.main", "leafdb.node.settings", "leafdb.node.secret", "leafdb.node.real_world", "leafdb.node.machine",
    "leafdb.storage.worker", "leafdb.storage.worker_cores",
)  # fmt: skip

HEAVY: dict[str, tuple[str, ...]] = {
    "pydantic": ("leafdb.node.settings",),
    "structlog": ("leafdb.node.log_output",),
    "prometheus_client": ("leafdb.node.metrics_page",),
    "opentelemetry": ("leafdb.node.tracing", "leafdb.client.tracing"),
    "typer": (),
    "rich": (),
    "cryptography": (),
    "pytest": ("leafdb.testing",),
    "hypothesis": ("leafdb.testing",),
}
"""Packages of an extra, and the modules that may import them. The command line may import any of them."""

SEEDED = {"Random", "SystemRandom"}


def package_of(name: str) -> str:
    """`storage` for leafdb.storage.wal, "leafdb" for leafdb itself, `leafdb_cli` for the command line."""
    parts = name.split(".")
    if parts[0] == "leafdb_cli":
        return "leafdb_cli"
    return parts[1] if len(parts) > 1 else FACE


def allows(allowed: tuple[str, ...], target: str) -> bool:
    inside = target.removeprefix("leafdb.")
    for entry in allowed:
        if entry == "*.messages" and inside.endswith(".messages"):
            return True
        if inside == entry or inside.startswith(entry + "."):
            return True
    return False


def layer_problem(module: Module, use: Import) -> str | None:
    source, target = package_of(module.name), package_of(use.target)
    if (
        source == target
        or BESIDE.get(source) == target
        or (source in ABOVE_ALL and target not in ("leafdb_cli", *ABOVE_ALL, FACE))
    ):
        return None
    if source == FACE:
        return None if target in ("client", "embedded", *ROW_0) else f"the face must not import {use.target}"
    if source == "leafdb_cli":
        if use.target == FACE or allows(CLI_ALLOWED, use.target):
            return None
        if allows(CLI_LAZY, use.target):
            return None if use.lazy or use.typing_only else f"{use.target} only lazily, inside a function"
        return f"the command line must not import {use.target}"
    if source == "testing" and target == FACE:
        return None
    if source in ALLOWED and allows(ALLOWED[source], use.target):
        return None
    return f"{source} must not import {use.target}"


def test_a_row_imports_only_rows_beneath() -> None:
    problems = []
    for module in shipped().values():
        for use in imports_of(module):
            if use.target.split(".")[0] in ("leafdb", "leafdb_cli"):
                problem = layer_problem(module, use)
                if problem:
                    problems.append(f"{module.where}:{use.line}: {problem}")
    assert not problems, "\n".join(problems)


def test_every_package_has_a_row() -> None:
    known = {*ALLOWED, *ABOVE_ALL, FACE, "leafdb_cli"}
    strangers = sorted({package_of(name) for name in shipped()} - known)
    assert not strangers, f"no row in the table for {strangers}"


def test_no_relative_imports() -> None:
    problems = [
        f"{module.where}:{use.line}"
        for module in modules().values()
        for use in imports_of(module)
        if use.target.startswith(".")
    ]
    assert not problems, problems


def test_no_import_cycles() -> None:
    graph = {
        module.name: sorted(
            {
                use.target
                for use in imports_of(module)
                if use.target in shipped() and use.target != module.name and not use.lazy and not use.typing_only
            }
        )
        for module in shipped().values()
    }
    state: dict[str, str] = {}
    trail: list[str] = []

    def visit(name: str) -> None:
        state[name] = "open"
        trail.append(name)
        for target in graph[name]:
            if state.get(target) == "open":
                pytest.fail(" -> ".join([*trail[trail.index(target) :], target]))
            if target not in state:
                visit(target)
        trail.pop()
        state[name] = "done"

    for name in graph:
        if name not in state:
            visit(name)


def forbidden_in(module: Module) -> set[str]:
    package = package_of(module.name)
    if package in PURE or module.name in PURE_MODULES:
        forbidden = FORBIDDEN_IN_PURE
    elif package == "storage":
        forbidden = FORBIDDEN_IN_STORAGE
    elif package == "vfs":
        forbidden = FORBIDDEN_IN_VFS
    elif package in ("node", "transport", "sim"):
        forbidden = FORBIDDEN_IN_NODE
    elif package == "client":
        forbidden = {"trio", "asyncio", "uuid"}
    else:
        forbidden = set()
    return forbidden - EXCUSED.get(module.name, set())


def test_each_kind_of_folder_keeps_to_its_kind() -> None:
    problems = []
    for module in shipped().values():
        forbidden = forbidden_in(module)
        for use in imports_of(module):
            top = use.target.split(".")[0]
            if top == "os" and not use.name and only_words_of_os(module):
                continue
            if top in forbidden and not use.typing_only:
                problems.append(f"{module.where}:{use.line}: imports {top}")
    assert not problems, "\n".join(problems)


def only_words_of_os(module: Module) -> bool:
    """Nothing of `os` is used but what touches nothing: the text of an error number."""
    names = [dotted(node) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)]
    return all(name == "os.strerror" for name in names if name.startswith("os."))


def test_files_are_opened_in_few_places() -> None:
    problems = []
    for module in shipped().values():
        package = package_of(module.name)
        if package in ("vfs", "leafdb_cli", "testing", "client") or module.name in OPENS_FILES:
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and dotted(node.func) in ("open", "io.open", "os.open"):
                problems.append(f"{module.where}:{node.lineno}: opens a file")
    assert not problems, "\n".join(problems)


def test_chance_and_the_clock_are_arguments() -> None:
    """`random.Random` may be named as a type or built from a seed; the module's functions share one hidden state."""
    problems = []
    for module in shipped().values():
        package = package_of(module.name)
        seedless = package in (*PURE, *DISK, "node", "transport", "sim") or module.name in PURE_MODULES
        for use in imports_of(module):
            if seedless and use.target == "random" and use.name and use.name not in SEEDED:
                problems.append(f"{module.where}:{use.line}: random.{use.name}")
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Attribute):
                continue
            name = dotted(node)
            if seedless and name.startswith("random.") and name.count(".") == 1 and node.attr not in SEEDED:
                problems.append(f"{module.where}:{node.lineno}: {name}")
            if name.startswith(("datetime.now", "datetime.datetime.now", "datetime.utcnow")) and seedless:
                problems.append(f"{module.where}:{node.lineno}: {name}")
    assert not problems, "\n".join(problems)


def test_extras_stay_out_of_the_base_install() -> None:
    problems = []
    for module in shipped().values():
        if package_of(module.name) == "leafdb_cli":
            continue
        for use in imports_of(module):
            top = use.target.split(".")[0]
            if top in HEAVY and not any(
                module.name == place or module.name.startswith(place + ".") for place in HEAVY[top]
            ):
                problems.append(f"{module.where}:{use.line}: imports {top}")
    assert not problems, "\n".join(problems)


def test_the_embedded_node_runs_on_the_base_install() -> None:
    """What importing the client or a node in one's own process loads, to the end of the chain, is in no extra."""
    waiting = [name for name in (FACE, "leafdb.client", "leafdb.embedded", "leafdb.node.node") if name in modules()]
    seen: set[str] = set()
    problems = []
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for use in imports_of(modules()[name]):
            if use.lazy or use.typing_only:
                continue
            if use.target.split(".")[0] in HEAVY:
                problems.append(f"{modules()[name].where}:{use.line}: {use.target}")
            elif use.target in shipped():
                waiting.append(use.target)
    assert not problems, "\n".join(problems)


def test_third_parties_are_declared() -> None:
    """Nothing is imported that pyproject.toml and docs/decisions/0001-dependencies.md do not name."""
    declared = {
        "trio", "anyio", "outcome", "sniffio", "cbor2", "lz4", "sortedcontainers", "xxhash", "google_crc32c",
        "leafdb", "leafdb_cli", "msgspec", *HEAVY,
    }  # fmt: skip
    problems = [
        f"{module.where}:{use.line}: {use.target}"
        for module in shipped().values()
        for use in imports_of(module)
        if not use.target.startswith(".")
        and use.target.split(".")[0] not in declared
        and use.target.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not problems, "\n".join(problems)


def test_private_names_stay_private() -> None:
    """Neither tests nor another package import a name with a leading underscore."""
    problems = []
    for module in modules().values():
        for use in imports_of(module):
            if not use.target.startswith(("leafdb.", "leafdb_cli.")):
                continue
            private = use.name.startswith("_") and not use.name.startswith("__")
            private = private or any(part.startswith("_") for part in use.target.split(".")[1:])
            own = module.name in shipped() and package_of(module.name) == package_of(use.target)
            if private and not own:
                problems.append(f"{module.where}:{use.line}: {use.target} {use.name}")
    assert not problems, "\n".join(problems)


def test_tests_do_not_reach_into_modules() -> None:
    """`module._name` on an imported module or class is the same trespass written otherwise."""
    problems = []
    for module in modules().values():
        if not module.name.startswith("tests."):
            continue
        imported = {use.name or use.target.split(".")[-1] for use in imports_of(module) if use.target[:6] == "leafdb"}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                base = dotted(node.value).split(".")[0]
                if base in imported:
                    problems.append(f"{module.where}:{node.lineno}: {dotted(node)}")
    assert not problems, "\n".join(problems)
