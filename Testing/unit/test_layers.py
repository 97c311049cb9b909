"""Floors: a module imports from lower floors and from its own room only, wherever the import stands.

Imports inside functions and under TYPE_CHECKING count too: they tie rooms together as much as others do.
"""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the ground up; a reader of one floor need not know the floors above it.
LIBRARY = (
    "core", "imaging", "conditioning", "networks", "diffusion", "inference", "models", "preprocessing", "datasets",
    "segmentation", "tasks", "runner", "training", "evaluation", "worker", "demo", "cli",
)  # fmt: skip
MODULE = ("worker", "nodes", "runs", "views", "panels")
LEFT_OUT = ("evaluation", "demo")
"""Rooms that Slicer's package lacks; only commands for them may import them."""

PACKAGES = {"MedDiffFMLib": (ROOT, LIBRARY), "MedDiffFMGui": (ROOT / "MedDiffFM", MODULE)}


def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file."""
    root, _ = PACKAGES[package]
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(package: str) -> list[tuple[str, str, str]]:
    """(importing module, imported module, place) of every import of the package by itself."""
    return list(_imports(package))


def _imports(package: str) -> Iterator[tuple[str, str, str]]:
    known = modules(package)
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = (name if path.name == "__init__.py" else name.rpartition(".")[0]).split(".")
                start = base[: len(base) - node.level + 1] if node.level else []
                source = ".".join([*start, *([node.module] if node.module else [])])
                inner = [f"{source}.{alias.name}" for alias in node.names]
                targets = [full if full in known else source for full in inner]
            else:
                continue
            yield from ((name, target, place) for target in targets if target.split(".")[0] == package)


def room(module: str) -> str:
    """Second part of a dotted name; empty for the package itself, its front door and its start."""
    return [*module.split("."), ""][1].removeprefix("__main__")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_a_floor(package: str) -> None:
    rooms = {room(name) for name in modules(package)} - {"", "api"}
    assert rooms == set(PACKAGES[package][1])


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_climbs(package: str) -> None:
    floors = PACKAGES[package][1]
    climbing = [
        f"{place}: {room(source)} imports {room(target)}"
        for source, target, place in imports(package)
        if room(source) in floors and room(target) in floors
        and floors.index(room(target)) > floors.index(room(source))
    ]  # fmt: skip
    assert not climbing, "\n".join(climbing)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_modules(package: str) -> None:
    needs: dict[str, set[str]] = {name: set() for name in modules(package)}
    for source, target, _ in imports(package):
        if target in needs and not source.startswith(f"{target}."):  # a module's own package is loaded before it
            needs[source].add(target)
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"circle: {' <- '.join(error.args[1])}")


def test_only_commands_import_what_slicers_package_lacks() -> None:
    allowed = {*LEFT_OUT, "cli"}
    for source, target, place in imports("MedDiffFMLib"):
        assert room(target) not in LEFT_OUT or room(source) in allowed, place


def test_the_page_names_the_floors_in_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("## Layers")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    named = [[name for name in LIBRARY if f"`{name}" in row or f"/{name}`" in row] for row in rows]
    places = [next((n for n, names in enumerate(named) if name in names), -1) for name in LIBRARY]
    assert -1 not in places, f"the page lacks {LIBRARY[places.index(-1)]}"
    assert places == sorted(places, reverse=True)
