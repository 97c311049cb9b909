"""Which room imports which, read from the source; and the picture of it in ``docs/explanation/architecture.md``.

``python -m Testing.unit.import_graph`` draws the picture anew.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
PACKAGES = {"MedDiffFMLib": ROOT, "MedDiffFMGui": ROOT / "MedDiffFM"}
"""Package -> folder that it lies in."""
SLICER_MODULE = "MedDiffFM"
"""Box of the module and its panels in the picture."""

Edge = tuple[str, str]


def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file."""
    root = PACKAGES[package]
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(package: str) -> list[tuple[str, str, str]]:
    """(importing module, imported module, place) of every import of the package by itself."""
    known = modules(package)
    every = (edge for name, path in known.items() for edge in _imports_of(name, path, known))
    return [edge for edge in every if edge[1].split(".")[0] == package]


def _imports_of(name: str, path: Path, known: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Imports of one file, wherever they stand in it."""
    file = path.relative_to(ROOT)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        place = f"{file}:{node.lineno}"
        if isinstance(node, ast.Import):
            yield from ((name, alias.name, place) for alias in node.names)
        else:
            base = (name if path.name == "__init__.py" else name.rpartition(".")[0]).split(".")
            start = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            inner = [f"{source}.{alias.name}" for alias in node.names]
            yield from ((name, full if full in known else source, place) for full in inner)


def room(module: str) -> str:
    """Second part of a dotted name; empty for the package itself, its front door and its start."""
    return [*module.split("."), ""][1].removeprefix("__main__")


def room_edges() -> set[Edge]:
    """Which room of the library imports which, and which of them the Slicer module imports."""
    pairs = {(room(source), room(target)) for source, target, _ in imports("MedDiffFMLib")}
    for path in sorted((ROOT / "MedDiffFM").rglob("*.py")):
        pairs |= {
            (SLICER_MODULE, room(target))
            for _, target, _ in _imports_of(SLICER_MODULE, path, ())
            if target.startswith("MedDiffFMLib.")
        }
    return {(source, target) for source, target in pairs if source and target and source != target}


def needed(edges: set[Edge]) -> set[Edge]:
    """The edges that no path of others replaces (the transitive reduction; there must be no circle)."""

    def below(start: str) -> set[str]:
        return {start}.union(*(below(target) for source, target in edges if source == start))

    reached = {node: below(node) for node in {node for edge in edges for node in edge}}
    return {
        (source, target)
        for source, target in edges
        if not any(target in reached[other] for start, other in edges if start == source and other != target)
    }


def picture() -> str:
    """Mermaid text: an arrow from each room to the rooms that it builds on."""
    arrows = [f"    {source} --> {target}" for source, target in sorted(needed(room_edges()))]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, "```"])


def with_picture(text: str) -> str:
    """The page with its picture drawn anew."""
    return re.sub(r"```mermaid\nflowchart TD\n.*?```", lambda match: picture(), text, count=1, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_picture(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
