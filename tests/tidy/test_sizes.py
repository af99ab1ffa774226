"""Files of one idea, functions that fit a screen, and nothing left lying about.

The bounds are walls, not aims: 150 to 300 lines read best.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize

from support.source_tree import ROOT, Module, modules

FILE_LINES_MAX = 420
FUNCTION_LINES_MAX = 75

# Written so that this file does not find itself.
MARKERS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
UNFINISHED = "NotImplemented" + "Error"
DIRECTIVES = ("type:", "noqa", "fmt:", "!", "pragma:")
CODE = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.With, ast.Try, ast.If)


def test_every_file_parses() -> None:
    """The other tests of this folder see a broken file as an empty one, so that each tells its own story."""
    broken = [f"{module.where}: {module.broken}" for module in modules().values() if module.broken]
    assert not broken, "\n".join(broken)


def test_files_are_short() -> None:
    long = [
        f"{module.where}: {lines} lines"
        for module in modules().values()
        if (lines := module.text.count("\n")) > FILE_LINES_MAX
    ]
    assert not long, "\n".join(long)


def test_functions_fit_a_screen() -> None:
    long = []
    for module in modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{module.where}:{node.lineno}: {node.name} has {lines} lines")
    assert not long, "\n".join(long)


def test_every_file_opens_with_its_theory() -> None:
    bare = [
        module.where
        for module in modules().values()
        if module.text and not (ast.get_docstring(module.tree) or "").strip()
    ]
    assert not bare, "\n".join(bare)


def test_annotations_are_never_evaluated() -> None:
    bare = [
        module.where
        for module in modules().values()
        if len(module.tree.body) > 1 and "from __future__ import annotations" not in module.text
    ]
    assert not bare, "\n".join(bare)


def test_nothing_is_left_for_later() -> None:
    problems = []
    for module in modules().values():
        for number, line in enumerate(module.text.splitlines(), 1):
            if MARKERS.search(line) or UNFINISHED in line:
                problems.append(f"{module.where}:{number}: {line.strip()}")
    assert not problems, "\n".join(problems)


def comments(module: Module) -> list[tuple[int, str]]:
    """Comments that have a line of their own."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            found.append((token.start[0], token.string.lstrip("#").strip()))
    return found


def looks_like_code(text: str) -> bool:
    """A comment that is a whole Python statement. Formulas and single words are prose."""
    if not text or text.startswith(DIRECTIVES):
        return False
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return False
    match body:
        case [ast.Expr(value=ast.Call() | ast.Await())] | [ast.Assign(value=ast.Call())]:
            return True
        case [ast.Return(value=ast.Call() | ast.Attribute())] | [ast.Raise(exc=ast.Call())]:
            return True
        case [first, *_]:
            return isinstance(first, CODE)
        case _:
            return False


def test_no_code_sleeps_in_comments() -> None:
    problems = [
        f"{module.where}:{line}: {text}"
        for module in modules().values()
        for line, text in comments(module)
        if looks_like_code(text)
    ]
    assert not problems, "\n".join(problems)


def test_the_detector_of_code_in_comments_can_tell() -> None:
    assert looks_like_code("value = compute(1)")
    assert looks_like_code("import os")
    assert not looks_like_code("w + r > n holds here")
    assert not looks_like_code("token = XXH3 of bucket id and key")
    assert not looks_like_code("done")


def test_no_tests_package_files() -> None:
    """Tests are imported by path; an __init__.py among them would make names clash."""
    assert not [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("__init__.py")]


def test_test_modules_have_names_of_their_own() -> None:
    seen: dict[str, str] = {}
    clashes = []
    for module in modules().values():
        if module.path.name.startswith("test_"):
            if module.path.name in seen:
                clashes.append(f"{module.where} and {seen[module.path.name]}")
            seen[module.path.name] = module.where
    assert not clashes, "\n".join(clashes)
