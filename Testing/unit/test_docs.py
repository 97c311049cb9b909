"""Pages: links lead somewhere, named files exist, examples are true. Needs no mkdocs."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import MedDiffFMLib as mdf
from MedDiffFMLib.core.resources import resource_folder
from MedDiffFMLib.tasks.registry import TASKS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "Testing").rglob("*.md"), *(ROOT / "Resources").rglob("*.md")]
)
TOPS = "MedDiffFMLib|MedDiffFMGui|MedDiffFM|Testing|Resources|docs"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without blocks of code."""
    return re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What headings are called in links, as GitHub and mkdocs make it."""
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#+ +(.+?) *$", prose(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading).lower()
        slug = re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain).strip())
        found.add(slug if slug not in found else f"{slug}-1")
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{target} leads nowhere"
        assert ROOT in place.parents, f"{target} leaves the repository"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_exist(page: Path, tracked: list[str]) -> None:
    """Paths in backticks that begin in this repository, or end in .py: whole, or the end of one."""
    for path in re.findall(rf"`((?:(?:{TOPS})/)?[\w./-]+)`", prose(page)):
        of_here = re.match(rf"(?:{TOPS})/", path)
        if not (of_here or ("/" in path and path.endswith(".py"))):
            continue
        ends = path.rstrip("/")
        known = any(f"/{file}".endswith(f"/{ends}") or f"/{ends}/" in f"/{file}" for file in tracked)
        assert known, f"there is no {path}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_says_is_in_a_file_is_in_it(page: Path, tracked: list[str]) -> None:
    """Every "`name`, `other` in `file.py`"."""
    for names, path in re.findall(r"((?:`[\w.]+`(?:,\s+|\s+and\s+)?)+)\s+in\s+`([\w./]+\.py)`", prose(page)):
        text = "".join((ROOT / file).read_text(encoding="utf-8") for file in tracked if f"/{file}".endswith(f"/{path}"))
        for said in re.findall(r"`([\w.]+)`", names):
            assert re.search(rf"\b{re.escape(said.split('.')[-1])}\b", text), f"{path} has no {said}"


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Files of the repository, as far as git knows or would add them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [file for file in listed.stdout.splitlines() if (ROOT / file).exists()]


def test_every_page_is_in_the_sites_menu_and_in_the_index() -> None:
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))) == pages
    linked = set(re.findall(r"\(([\w/-]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert pages - linked == {"index.md"}


def examples(page: Path) -> list[str]:
    """Blocks of Python, without the indentation that they have in a list."""
    blocks = re.findall(r"(?ms)^( *)```python\n(.*?)^ *```", page.read_text(encoding="utf-8"))
    return [re.sub(rf"(?m)^{indent}", "", code) for indent, code in blocks]


EXAMPLES = [(page, code) for page in PAGES for code in examples(page) if "..." not in code]


@pytest.mark.parametrize("page, code", EXAMPLES, ids=[name(page) for page, _ in EXAMPLES])
def test_examples_use_the_front_door_as_it_is(page: Path, code: str) -> None:
    """No deeper import of the library; names exist, tasks and fine-tuning know the keywords."""
    tree = ast.parse(code)
    for module in imported(tree):
        assert module.split(".")[0] != "MedDiffFMLib" or module == "MedDiffFMLib", f"{module} is behind the front door"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mdf":
            assert hasattr(mdf, node.attr), f"mdf has no {node.attr}"
        if isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("mdf.") in TASKS:
            known = inspect.signature(getattr(mdf, ast.unparse(node.func).removeprefix("mdf."))).parameters
            assert {word.arg for word in node.keywords} <= set(known), ast.unparse(node)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{node.module}.x" if node.module == "MedDiffFMLib" else str(node.module)


@pytest.mark.slow
def test_docstrings_describe_parameters_that_there_are() -> None:
    """Every name under "Args:" is a parameter of the function, or of the class's ``__init__`` or fields."""
    for path in sorted((ROOT / "MedDiffFMLib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue
            section = re.search(r"(?ms)^Args:\n(.*?)(?:^\S|\Z)", ast.get_docstring(node) or "")
            said = re.findall(r"(?m)^    ([\w*]+(?:, [\w*]+)*):", section[1]) if section else []
            names = {name.lstrip("*") for entry in said for name in entry.split(", ")}
            known = parameters(node) or names  # a class may have the parameters of the one that it extends
            assert names <= known, f"{path.relative_to(ROOT)}: {node.name} has no {names - known}"


def parameters(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    if isinstance(node, ast.ClassDef):
        inits = [
            part for part in node.body if isinstance(part, ast.FunctionDef) and part.name in ("__init__", "__new__")
        ]
        fields = {
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
        return fields.union(*(parameters(part) for part in inits))
    listed = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    return {argument.arg for argument in listed if argument is not None}


@pytest.fixture
def small_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, now the current one, with a part of the sample around its nodule under the sample's own names."""
    folder = tmp_path / "Resources" / "SampleData"
    folder.mkdir(parents=True)
    corner = (60, 115, 115)  # (k, j, i); the nodule is at (89, 147, 148)
    for name, modality in (("thorax_lidc0001.nrrd", "CT"), ("thorax_lidc0001_mask.nrrd", "mask")):
        whole = mdf.read_volume(resource_folder() / "SampleData" / name, modality)
        matrix = whole.ijk_to_ras.copy()
        matrix[:3, 3] = (whole.ijk_to_ras @ [*reversed(corner), 1.0])[:3]
        part = whole.voxels[tuple(slice(first, first + 64) for first in corner)]
        mdf.write_volume(mdf.Volume(np.ascontiguousarray(part), matrix, modality), folder / name)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page, written",
    [
        ("README.md", ["anomaly.nrrd"]),
        ("docs/tutorials/python.md", ["anomaly.nrrd", "filled.nrrd"]),
    ],
)
def test_examples_run_on_the_sample(
    page: str, written: list[str], small_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the shipped weights, on a part of the CT."""
    code = "\n".join(examples(ROOT / page))
    exec(compile(code, page, "exec"), {})
    assert "'peak_z'" in capsys.readouterr().out
    sample = mdf.read_volume(small_sample / "thorax_lidc0001.nrrd")
    for name in written:
        assert mdf.read_volume(name).same_geometry(sample)


def test_version_is_the_same_everywhere() -> None:
    for file, pattern in (
        ("pyproject.toml", rf'(?m)^version = "{re.escape(mdf.__version__)}"$'),
        ("CITATION.cff", rf"(?m)^version: {re.escape(mdf.__version__)}$"),
        ("CHANGELOG.md", rf"(?m)^## {re.escape(mdf.__version__)}\b"),
    ):
        assert re.search(pattern, (ROOT / file).read_text(encoding="utf-8")), file
