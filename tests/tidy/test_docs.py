"""The documentation holds together: links resolve, formats are listed, decisions are numbered without gaps."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from support.source_tree import ROOT

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
TABLE_HEAD = re.compile(r"\| *:?-")
OUTSIDE = ("http://", "https://", "mailto:")


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def links(page: Path) -> Iterator[str]:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from LINK.findall(prose)


def slug(heading: str) -> str:
    """The anchor a heading gets: lower case, words joined by dashes, punctuation dropped."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+\s+(.*)$", prose, re.MULTILINE)}


def test_relative_links_resolve() -> None:
    broken = []
    for page in pages():
        for link in links(page):
            if link.startswith(OUTSIDE):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                broken.append(f"{page.relative_to(ROOT)}: {link}")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                broken.append(f"{page.relative_to(ROOT)}: {link} (no such heading)")
    assert not broken, "\n".join(broken)


def test_every_table_has_its_head() -> None:
    """A row behind an empty line is no row: what stands there is shown as text."""
    broken = []
    for page in pages():
        lines = FENCE.sub(lambda found: re.sub(r"[^\n]", "", found[0]), page.read_text(encoding="utf-8")).split("\n")
        for number, (before, line, after) in enumerate(zip(["", *lines], lines, [*lines[1:], ""], strict=False), 1):
            if line.startswith("|") and not before.startswith("|") and not TABLE_HEAD.match(after):
                broken.append(f"{page.relative_to(ROOT)}:{number}: {line[:60]}")
    assert not broken, "\n".join(broken)


def listed(index: Path) -> set[str]:
    return {link.partition("#")[0] for link in links(index)}


def test_every_format_is_listed() -> None:
    folder = ROOT / "docs" / "formats"
    missing = {page.name for page in folder.glob("*.md")} - {"README.md"} - listed(folder / "README.md")
    assert not missing, f"not linked from docs/formats/README.md: {sorted(missing)}"


def test_every_decision_is_listed_and_numbered_without_gaps() -> None:
    folder = ROOT / "docs" / "decisions"
    names = sorted(page.name for page in folder.glob("*.md") if page.name != "README.md")
    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name) for name in names), names
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1)), names
    missing = set(names) - listed(folder / "README.md")
    assert not missing, f"not linked from docs/decisions/README.md: {sorted(missing)}"


def test_every_page_is_reachable_from_the_map() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md", ROOT / "docs" / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        for link in links(page):
            if not link.startswith(OUTSIDE) and link.partition("#")[0]:
                waiting.append((page.parent / link.partition("#")[0]).resolve())
    lost = [str(page.relative_to(ROOT)) for page in pages() if page not in seen]
    assert not lost, f"no road from docs/README.md to {lost}"


def test_every_dependency_has_its_reason_and_no_ceiling() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    page = (ROOT / "docs" / "decisions" / "0001-dependencies.md").read_text(encoding="utf-8")
    for requirement in wanted:
        name = re.split(r"[\[<>=!~ ]", requirement)[0]
        assert name == "leafdb" or re.search(rf"\b{re.escape(name)}\b", page), f"0001 does not say why {name}"
        assert not re.search(r"<|==|~=", requirement), f"{requirement}: floors, not ceilings"
