"""Floors: a module imports from lower floors and from its own room only, wherever the import stands.

Imports inside functions and under TYPE_CHECKING count too: they tie rooms together as much as others do.
"""

from __future__ import annotations

import graphlib

import pytest

from Testing.unit.import_graph import PACKAGES, PAGE, imports, modules, room, with_picture

# From the ground up; a reader of one floor need not know the floors above it.
LIBRARY = (
    "core", "imaging", "conditioning", "networks", "diffusion", "inference", "models", "preprocessing", "datasets",
    "segmentation", "multimodal", "tasks", "dicom", "pages", "runner", "node", "training", "evaluation", "worker",
    "api", "reading", "demo", "cli",
)  # fmt: skip
MODULE = ("worker", "nodes", "runs", "views", "panels")
LEFT_OUT = ("evaluation", "demo")
"""Rooms that Slicer's package lacks; only commands for them may import them."""

FLOORS = {"MedDiffFMLib": LIBRARY, "MedDiffFMGui": MODULE}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_a_floor(package: str) -> None:
    rooms = {room(name) for name in modules(package)} - {""}
    assert rooms == set(FLOORS[package])


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_climbs(package: str) -> None:
    floors = FLOORS[package]
    climbing = [
        f"{place}: {room(source)} imports {room(target)}"
        for source, target, place in imports(package)
        if room(source) in floors and room(target) in floors and floors.index(room(target)) > floors.index(room(source))
    ]
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
    page = PAGE.read_text(encoding="utf-8")
    table = page.split("## Layers")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    named = [[name for name in LIBRARY if f"`{name}" in row or f"/{name}`" in row] for row in rows]
    places = [next((n for n, names in enumerate(named) if name in names), -1) for name in LIBRARY]
    assert -1 not in places, f"the page lacks {LIBRARY[places.index(-1)]}"
    assert places == sorted(places, reverse=True)


@pytest.mark.slow
def test_the_picture_is_that_of_the_imports() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_picture(page), "run python -m Testing.unit.import_graph"
    assert page.count("flowchart TD") == 1
