"""What reaches the user: the wheel, the Slicer package and the catalogue entry hold what the folders hold."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from MedDiffFMLib.core.errors import MedDiffFMError
from MedDiffFMLib.core.resources import resource_folder
from MedDiffFMLib.dicom.out.shell import MODEL_NAME
from MedDiffFMLib.tasks.registry import TASKS

ROOT = Path(__file__).resolve().parents[2]
DATA_FOLDERS = ("Resources/Models", "Resources/SampleData", "Resources/Anatomy")


def files(folder: str, *suffixes: str) -> set[str]:
    """Files below a folder as paths relative to the repository; without caches and hidden files."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {
        path.relative_to(ROOT).as_posix()
        for path in found
        if "__pycache__" not in path.parts
        and not any(part.startswith(".") for part in path.parts[len(ROOT.parts) :])
        and (not suffixes or path.suffix in suffixes)
    }


def cmake_sets(path: str) -> dict[str, list[str]]:
    """Every ``set(NAME values...)`` of a CMakeLists.txt, quotes and comments removed."""
    text = re.sub(r"(?m)^\s*#.*$", "", (ROOT / path).read_text())
    sets = {}
    for name, body in re.findall(r'\bset\(\s*(\w+)\s+((?:"[^"]*"|[^")])*)\)', text):
        sets[name] = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([^\s"]+)', body)]
    return sets


# A stand-in for Slicer's build system, around the real CMakeLists.txt: it installs what the macro is given.
BUILD_SYSTEM = """
cmake_minimum_required(VERSION 3.20)
project(Slicer NONE)
macro(cmake_minimum_required)
endmacro()
macro(project)
endmacro()
macro(find_package)
endmacro()
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(file IN LISTS MY_SCRIPTS MY_RESOURCES)
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${CMAKE_CURRENT_SOURCE_DIR}/${file} DESTINATION ./${folder})
  endforeach()
endmacro()
foreach(name Slicer_USE_FILE Slicer_EXTENSION_GENERATE_CONFIG Slicer_EXTENSION_CPACK)
  set(${name} ${CMAKE_CURRENT_LIST_DIR}/nothing.cmake)
endforeach()
add_subdirectory(${CHECKOUT} extension)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the extension is installed into, made by CMake from the project's own lists."""
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if cmake is None:
        pytest.skip("needs CMake")
    folder = tmp_path_factory.mktemp("extension")
    (folder / "CMakeLists.txt").write_text(BUILD_SYSTEM)
    (folder / "nothing.cmake").touch()
    tree = folder / "installed"
    for command in (
        [cmake, "-S", folder, "-B", folder / "build", f"-DCHECKOUT={ROOT}", f"-DCMAKE_MAKE_PROGRAM={sys.executable}"],
        [cmake, "--install", folder / "build", "--prefix", tree],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    return tree


@pytest.mark.slow
def test_installed_extension_holds_library_module_and_data_and_nothing_else(installed: Path) -> None:
    measuring = files("MedDiffFMLib/evaluation") | {f"MedDiffFMLib/demo/{name}.py" for name in ("run", "figure")}
    module = {name.removeprefix("MedDiffFM/") for name in files("MedDiffFM")} - {"CMakeLists.txt"}
    module = {name for name in module if not name.startswith("Testing/")}
    library = files("MedDiffFMLib", ".py").union(*(files(folder) for folder in DATA_FOLDERS)) - measuring
    assert not module & library, "both are installed into one folder"
    present = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert present - module - library == set(), "too much"
    assert (module | library) - present == set(), "too little: see the file(GLOB ...) of the CMakeLists.txt"


@pytest.mark.slow
@pytest.mark.parametrize("words", ["evaluate CASES --model none", "benchmark --repeats 1", "demo --device cpu"])
def test_what_only_measures_says_in_one_line_that_slicers_package_lacks_it(installed: Path, words: str) -> None:
    name, *rest = words.split()
    program = ["MedDiffFMLib.demo"] if name == "demo" else ["MedDiffFMLib", name]
    done = subprocess.run(
        [sys.executable, "-m", *program, *rest], cwd=installed, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert "not in this installation" in line


@pytest.mark.slow
def test_installed_extension_knows_all_other_commands(installed: Path) -> None:
    code = (
        "from MedDiffFMLib import cli; print(cli.__file__)\n"
        "for words in (['--help'], ['info', 'x', '--nonsense']): cli.main(words)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=installed, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(str(installed)) and "finetune" in done.stdout
    assert "unrecognized arguments: --nonsense" in done.stderr


def test_extension_descriptions_agree() -> None:
    """CMakeLists.txt is the truth; the .s4ext and the catalogue entry repeat it."""
    truth = cmake_sets("CMakeLists.txt")
    described = {}
    for line in (ROOT / "MedDiffFM.s4ext").read_text().splitlines():
        if line and not line.startswith("#"):
            keyword, _, value = line.partition(" ")
            described[keyword] = value
    assert set(described) == {
        "scm", "scmurl", "scmrevision", "depends", "recommends", "build_subdirectory", "homepage", "contributors",
        "category", "iconurl", "status", "tier", "description", "screenshoturls", "enabled", "dicom_support_rule",
        "keywords",
    }  # fmt: skip
    for field in (
        "homepage",
        "contributors",
        "category",
        "iconurl",
        "description",
        "screenshoturls",
        "depends",
        "recommends",
        "status",
        "tier",
        "keywords",
    ):
        assert described[field] == " ".join(truth[f"EXTENSION_{field.upper()}"]), field

    entry = json.loads((ROOT / "MedDiffFM.json").read_text())
    assert re.search(r"project\(MedDiffFM\)", (ROOT / "CMakeLists.txt").read_text())
    assert set(entry) <= {
        "$schema", "build_dependencies", "build_subdirectory", "category", "scm_revision", "scm_type", "scm_url",
        "dicom_support_rule", "enabled", "tier",
    }  # fmt: skip
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert entry["dicom_support_rule"] == f"ManufacturerModelName == '{MODEL_NAME}'", "of objects that --dicom wrote"
    assert entry["scm_url"] == described["scmurl"]
    assert entry["category"] == described["category"]
    assert entry["tier"] == int(described["tier"])
    assert entry["build_dependencies"] == described["depends"].split()


def test_icons_are_square() -> None:
    import struct

    for path, edge in (("Resources/Icons/MedDiffFM.png", 256), ("MedDiffFM/Resources/Icons/MedDiffFM.png", 128)):
        header = (ROOT / path).read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", header[16:24]) == (edge, edge)


def test_every_task_has_a_square_icon() -> None:
    import struct

    names = {task.icon for task in TASKS.values()}
    assert len(names) >= 7
    for name in names:
        header = (ROOT / "MedDiffFM" / "Resources" / "Icons" / name).read_bytes()[:24]
        width, height = struct.unpack(">II", header[16:24])
        assert width == height >= 32, name


def test_sample_data_are_registered_with_their_own_hash() -> None:
    listed = dict(
        re.findall(r'"(\w+\.nrrd)": "(\w{64})"', (ROOT / "MedDiffFM/MedDiffFMGui/nodes/sampleData.py").read_text())
    )
    present = {path.name: path for path in (ROOT / "Resources/SampleData").glob("*.nrrd")}
    assert set(listed) == set(present)
    for name, path in present.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name]


def test_screenshots_that_are_named_are_there() -> None:
    for url in cmake_sets("CMakeLists.txt")["EXTENSION_SCREENSHOTURLS"][0].split():
        assert (ROOT / url.split("/main/", 1)[1]).is_file(), url


def test_license_is_apache_2_word_for_word() -> None:
    digest = hashlib.sha256((ROOT / "LICENSE.txt").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_worker_needs_in_slicer_are_needs_of_the_library() -> None:
    """The module's lists of requirements repeat lines of pyproject.toml, floors included."""
    project = (ROOT / "pyproject.toml").read_text()
    tables = re.findall(r"(?s)\n(?:dependencies|training|dicom|pacs) = \[(.*?)\]\n", project)
    dependencies = [line for table in tables for line in re.findall(r'"([^"]+)"', table)]
    for name in ("", "-training", "-dicom", "-pacs"):
        lines = (ROOT / f"MedDiffFM/Resources/requirements{name}.txt").read_text().splitlines()
        needs = [line for line in lines if line and not line.startswith("#")]
        assert needs
        assert set(needs) <= set(dependencies), name


# ---------------------------------------------------------------------------------------------------------- resources


def unpacked_copy(folder: Path) -> Path:
    """The part of the library that finds its resources, at another place."""
    package = folder / "MedDiffFMLib"
    shutil.copytree(ROOT / "MedDiffFMLib/core", package / "core")
    shutil.copy(ROOT / "MedDiffFMLib/__init__.py", package)
    return package


def found_by(folder: Path) -> str:
    code = "from MedDiffFMLib.core.resources import resource_folder; print(resource_folder())"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_resources_in_a_checkout() -> None:
    assert resource_folder() == ROOT / "Resources"


def test_resources_in_an_installed_extension_lie_beside_the_library(tmp_path: Path) -> None:
    unpacked_copy(tmp_path)
    (tmp_path / "Resources" / "Models").mkdir(parents=True)
    assert Path(found_by(tmp_path)) == (tmp_path / "Resources").resolve()


def test_resources_in_a_wheel_win_over_a_neighbor(tmp_path: Path) -> None:
    package = unpacked_copy(tmp_path)
    (tmp_path / "Resources" / "Models").mkdir(parents=True)
    (package / "Resources" / "Models").mkdir(parents=True)
    assert Path(found_by(tmp_path)) == (package / "Resources").resolve()


def test_missing_resources_are_said_in_words(tmp_path: Path) -> None:
    unpacked_copy(tmp_path)
    assert "Install the package again" in found_by(tmp_path)
    assert issubclass(MedDiffFMError, Exception)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that ``pip install .`` would install, built without the network."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("meddifffm-*.whl")
    return built


@pytest.mark.slow
def test_wheel_holds_library_weights_and_sample(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert files("MedDiffFMLib") <= names
    for folder in DATA_FOLDERS:
        assert {f"MedDiffFMLib/{name}" for name in files(folder)} <= names
    assert "meddifffm = MedDiffFMLib.cli:main" in entry
    assert any(name.endswith("licenses/LICENSE.txt") for name in names)
    assert not [name for name in names if name.startswith(("Testing", "MedDiffFM/", "docs", "Resources"))]


@pytest.mark.slow
def test_installed_wheel_finds_its_resources(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    assert Path(found_by(tmp_path)) == (tmp_path / "MedDiffFMLib" / "Resources").resolve()
