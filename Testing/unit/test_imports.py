"""Importing the library is cheap, and the Slicer module imports nothing that Slicer lacks."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "MedDiffFMLib"
MODULE = ROOT / "MedDiffFM"

# Only these rooms and modules may import torch at file scope: they define networks or compute with tensors. All others
# are read by the command line, the worker's client and Slicer before any model is needed.
HEAVY = (
    "networks", "diffusion", "conditioning", "inference", "preprocessing", "segmentation", "training", "evaluation",
    "core.async_copy", "core.precision", "imaging.haar", "datasets.prepare", "api.training", "api.bundle",
    "multimodal.projection", "multimodal.radiograph", "multimodal.xray_consistency", "multimodal.fact_guidance",
    "tasks.reconstruct.expected_image", "tasks.anomaly.detector", "tasks.anomaly.reasons",
    "tasks.super_resolve.self_training", "tasks.denoise.blocks", "tasks.denoise.combination",
    "tasks.denoise.mixing", "tasks.denoise.supervised", "tasks.denoise.thresholding", "tasks.denoise.tuning",
    "tasks.denoise.wiener",
    "multimodal.guidance",
    "multimodal.intensity_lookup", "multimodal.fact_encoder", "multimodal.translation", "multimodal.flow",
    "multimodal.search", "multimodal.invariant", "multimodal.encoders", "multimodal.box_xray", "multimodal.boxes",
    "multimodal.acquisitions", "multimodal.flow_file", "multimodal.alignment", "multimodal.local_guess",
    "multimodal.aligned", "multimodal.xray_regression", "multimodal.xray_refinement", "multimodal.trunk_flow",
    "multimodal.sentence_encoder",
    "multimodal.fact_flow", "multimodal.fact_reader", "multimodal.fact_summary", "multimodal.mr_tiles",
    "multimodal.xray_piece",
)  # fmt: skip
LIGHT_AFTER_ALL = (
    "conditioning.regions", "conditioning.totalsegmentator_labels", "diffusion.kinds", "preprocessing.mask_crop",
    "networks.backbone", "networks.registry", "segmentation.registry", "segmentation.head_file",
    "training.finetune.background", "training.finetune.config",
    "training.finetune.progress_log", "training.finetune.registry", "training.pretrain.presets",
    "evaluation.speed.cases", "evaluation.speed.run", "evaluation.speed.subprocess_runner",
    "evaluation.speed.report_page",
)  # fmt: skip
FORBIDDEN = (
    "torch", "monai", "lightning", "lightning_fabric", "einops", "scipy", "skimage", "nrrd", "nibabel", "pydicom",
    "matplotlib",
)  # fmt: skip


def module_names() -> list[str]:
    """Every module of the library by its dotted name."""
    names = []
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in names if not name.endswith("__main__")]


def light_modules() -> list[str]:
    """Modules that import nothing heavy; packages are imported with their modules."""
    names = [name.removeprefix("MedDiffFMLib.") for name in module_names()]
    light = [name for name in names if name in LIGHT_AFTER_ALL or not within(name, HEAVY)]
    return [name if name == "MedDiffFMLib" else f"MedDiffFMLib.{name}" for name in light]


def within(name: str, rooms: tuple[str, ...]) -> bool:
    """Whether a module is one of some modules, or in one of some packages."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def sources(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts]


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """A file, parsed once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


def in_child(code: str) -> str:
    """Run code in a fresh Python that sees the checkout; its output."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_light_modules_leave_heavy_packages_alone() -> None:
    """Each light module is imported by itself; the culprit is named."""
    code = f"""
import importlib, sys
for name in {light_modules()!r}:
    importlib.import_module(name)
    heavy = [package for package in {FORBIDDEN!r} if package in sys.modules]
    if heavy:
        print(name, "imports", *heavy)
        break
"""
    assert in_child(code) == ""


@pytest.mark.slow
def test_import_takes_less_than_a_tenth_of_a_second() -> None:
    """Processor time, the best of three, because the machine may be busy; numpy, which Slicer has, is not counted."""
    code = """
import time, numpy
begin = time.process_time()
import MedDiffFMLib, MedDiffFMLib.core.errors, MedDiffFMLib.imaging.volume, MedDiffFMLib.tasks.registry
import MedDiffFMLib.core.progress, MedDiffFMLib.core.resources
print(time.process_time() - begin)
"""
    assert min(float(in_child(code)) for _ in range(6)) < 0.1


@pytest.mark.slow
def test_library_never_imports_slicer_or_qt() -> None:
    for path in sources(LIBRARY):
        for name in imported(tree_of(path), everywhere=True):
            assert name not in ("slicer", "qt", "ctk", "vtk"), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.slow
def test_slicer_module_imports_nothing_foreign_at_file_scope() -> None:
    own = {path.stem for path in MODULE.rglob("*.py")} | {"MedDiffFMGui"}
    allowed = own | set(sys.stdlib_module_names) | {"slicer", "vtk", "qt", "ctk"}
    for path in sources(MODULE):
        for name in imported(tree_of(path), everywhere=False):
            assert name in allowed, f"{path.relative_to(ROOT)} imports {name} at file scope"


def imported(tree: ast.AST, everywhere: bool) -> list[str]:
    """Top-level names of the absolute imports, at file scope only or everywhere."""
    found = []
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found += [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append(node.module.split(".")[0])
        inside_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if everywhere or not inside_function:
            pending += ast.iter_child_nodes(node)
    return found


def test_parts_of_monai_are_imported_without_the_rest() -> None:
    """Where they stand in ``USED``, a call of ``lean_monai`` precedes; else a process pays for all of MONAI."""
    from MedDiffFMLib.core.lean_monai import USED

    whole = {"monai.inferers": "SlidingWindowInferer", "monai.data.utils": "dense_patch_slices"}  # of the benchmark
    used = {(module, name) for module, names in USED.items() for name in names}
    taken = set()
    for path in sources(LIBRARY):
        for function in (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)):
            calls = [node.lineno for node in function.body if "lean_monai()" in ast.unparse(node)]
            for node in function.body:
                if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "monai":
                    continue
                names = {(node.module, alias.name) for alias in node.names} - whole.items()
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                assert names <= used, f"{place} is not in USED"
                assert not names or any(line < node.lineno for line in calls), f"{place} without lean_monai()"
                taken |= names
    assert taken == used


@pytest.mark.slow
def test_names_that_a_supported_slicer_lacks() -> None:
    """5.12 has no LazyImport, Python 3.12 no imp, Qt 6 none of the others."""
    lacking = {"LazyImport", "imp", "QTextCodec", "QRegExp", "QDesktopWidget"}
    for path in sources(MODULE, LIBRARY):
        for node in ast.walk(tree_of(path)):
            used = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "module", None)}
            used |= {alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)}
            assert not lacking & used, f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {lacking & used}"


def test_no_path_of_one_machine_in_the_tree() -> None:
    """Files that git tracks name no home folder and no absolute working folder."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert paths
    machine = re.compile(rb"(?<![\w.-])/(?:work|root|home/\w+|Users/\w+)/")
    for path in paths:
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" in content[:4096] or path == Path(__file__).resolve():
            continue
        assert not machine.search(content), f"{path.relative_to(ROOT)} names a folder of one machine"
