"""The one-command runner: what it refuses in one line, and what it does without a network."""

from __future__ import annotations

import collections
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py as a module that works in a folder of the test."""
    spec = importlib.util.spec_from_file_location("run_under_test", ROOT / "run.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    monkeypatch.setattr(module, "VENV", str(tmp_path / ".venv"))
    monkeypatch.setattr(module, "PYTHON", str(tmp_path / ".venv" / "bin" / "python"))
    monkeypatch.delenv("MEDDIFFFM_TORCH", raising=False)
    return module


def fake_pip(runner: ModuleType, monkeypatch: pytest.MonkeyPatch, complaint: str, code: int = 1) -> None:
    """pip that writes a complaint and ends."""
    command = [sys.executable, "-c", f"import sys; sys.stderr.write({complaint!r}); sys.exit({code})"]
    original = subprocess.Popen
    monkeypatch.setattr(runner.subprocess, "Popen", lambda _, **options: original(command, **options))


def test_help_and_unknown_command() -> None:
    command = [sys.executable, str(ROOT / "run.py")]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and "MEDDIFFFM_TORCH" in shown.stdout and "demo" in shown.stdout
    refused = subprocess.run([*command, "tset"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1


def test_only_the_standard_library_is_imported(runner: ModuleType) -> None:
    """Without site-packages the file still works."""
    command = [sys.executable, "-I", "-S", str(ROOT / "run.py"), "--help"]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def test_old_python_is_named(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    version = collections.namedtuple("version", "major minor micro releaselevel serial")
    monkeypatch.setattr(runner.sys, "version_info", version(3, 8, 2, "final", 0))
    with pytest.raises(runner.Problem, match=r"this is Python 3\.8, but 3\.10"):
        runner.check_python()


def test_missing_venv_names_the_debian_package(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(runner.Problem, match=rf"python3\.{sys.version_info.minor}-venv"):
        runner.check_python()


def test_full_disk_is_refused_before_anything_is_made(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(runner.shutil, "disk_usage", lambda path: usage(10e9, 9.5e9, 0.5e9))
    with pytest.raises(runner.Problem, match="0.5 GB are free"):
        runner.check_room("demo")
    assert not Path(runner.VENV).exists()


@pytest.mark.parametrize(
    "complaint, words",
    [
        ("WARNING: Retrying ... NewConnectionError\nERROR: No matching distribution found for torch", "network"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device\n", "disk is full"),
        ("ERROR: No matching distribution found for torch==99\n", "No matching distribution found for torch==99"),
    ],
)
def test_complaints_of_pip_become_one_line(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, complaint: str, words: str
) -> None:
    fake_pip(runner, monkeypatch, complaint)
    with pytest.raises(runner.Problem, match=words) as caught:
        runner.pip(["torch"])
    assert "\n" not in str(caught.value)


def test_a_build_that_does_not_exist_is_not_an_error_when_there_is_another(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(runner, "works", lambda code: False)
    monkeypatch.setattr(runner, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(runner.platform, "system", lambda: "Linux")
    monkeypatch.setattr(runner, "pip", lambda words, may_lack=False: asked.append(words) or not may_lack)
    runner.install_torch(system_torch=False)
    assert asked == [[runner.TORCH + "+cpu"], [runner.TORCH]]


def test_users_torch_is_taken_as_it_is(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setenv("MEDDIFFFM_TORCH", "--pre torch==2.9.1")
    monkeypatch.setattr(runner, "pip", lambda words, may_lack=False: asked.append(words) or True)
    runner.install_torch(system_torch=False)
    assert asked == [["--pre", "torch==2.9.1"]]


def prepared(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace every slow step by a note that it happened."""
    steps: list[str] = []
    monkeypatch.setattr(runner, "check_room", lambda command: None)
    monkeypatch.setattr(runner, "install_torch", lambda system_torch: steps.append("torch"))
    monkeypatch.setattr(runner, "pip", lambda words, may_lack=False: steps.append(words[-1].removeprefix(runner.ROOT)))

    def make(system_torch: bool) -> None:
        Path(runner.PYTHON).parent.mkdir(parents=True, exist_ok=True)
        Path(runner.PYTHON).touch()

    monkeypatch.setattr(runner, "make_environment", make)
    return steps


def test_second_run_installs_nothing_and_a_change_installs_again(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = prepared(runner, monkeypatch)
    runner.prepare("test", False)
    assert steps == ["torch", "[test]"]
    runner.prepare("test", False)
    runner.prepare("demo", False)  # the tests' environment serves the demo
    assert steps == ["torch", "[test]"]
    (Path(runner.ROOT) / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    runner.prepare("demo", False)
    assert steps == ["torch", "[test]", "torch", ""]


def test_interrupted_installation_is_repaired(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing counts as done before the very end."""
    steps = prepared(runner, monkeypatch)

    def interrupted(words: list[str], may_lack: bool = False) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "pip", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.prepare("demo", False)
    runner.prepare("demo", False)
    assert steps == ["torch", "torch", ""]


def with_types(runner: ModuleType, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """``mypy`` is a program that runs ``code``; nothing is installed."""
    original = subprocess.Popen

    def begin(command: list[str], **options: Any) -> subprocess.Popen[str]:
        assert command[2:] == ["mypy"]
        return original([sys.executable, "-c", code], **options)

    monkeypatch.setattr(runner, "check_system_packages", lambda: None)
    monkeypatch.setattr(runner.subprocess, "Popen", begin)


@pytest.mark.parametrize(("codes", "first"), [((0, 0, 0), 7), ((0, 0, 1), 1), ((2, 0, 1), 2)])
def test_every_check_runs_and_the_first_failure_counts(
    codes: tuple[int, int, int],
    first: int,
    runner: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Types come last, with all that mypy wrote; it had what the tests left of the processor."""
    called: list[str] = []
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def call(command: list[str], cwd: str, env: dict[str, str]) -> int:
        called.append(command[2])
        assert "PYTHONDONTWRITEBYTECODE" not in env and env["PATH"] == os.environ["PATH"]
        return codes[len(called) - 1]

    priority = "os.getpriority(os.PRIO_PROCESS, 0)" if os.name == "posix" else "19"
    with_types(runner, monkeypatch, f"import os, sys; print('nice', {priority}); sys.exit(7)")
    monkeypatch.setattr(runner.subprocess, "call", call)
    assert runner.test(["-k", "geometry"]) == first
    assert called == ["ruff", "ruff", "pytest"]
    assert "run.py: types: mypy\nnice 19\n" in capsys.readouterr().out


def test_types_do_not_outlive_an_interrupt(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with_types(runner, monkeypatch, "import time; time.sleep(600)")
    begun: list[subprocess.Popen[str]] = []
    begin = runner.subprocess.Popen

    def remember(command: list[str], **options: Any) -> subprocess.Popen[str]:
        begun.append(begin(command, **options))
        return begun[0]

    monkeypatch.setattr(runner.subprocess, "Popen", remember)

    def interrupt(command: list[str], cwd: str, env: dict[str, str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.subprocess, "call", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runner.test([])
    assert begun[0].returncode is not None


def test_quick_leaves_out_types_and_slow_tests(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(runner, "check_system_packages", lambda: None)
    monkeypatch.setattr(runner.subprocess, "call", lambda command, cwd, env: called.append(command[2:]) or 0)
    assert runner.test(["-k", "geometry", "--quick"]) == 0
    assert [command[0] for command in called] == ["ruff", "ruff", "pytest"]
    assert called[-1] == ["pytest", *runner.QUICK, *runner.SIDE_BY_SIDE, "-k", "geometry"]


def test_all_tests_run_on_all_cores_and_chosen_ones_in_one_process(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    with_types(runner, monkeypatch, "")
    monkeypatch.setattr(runner.subprocess, "call", lambda command, cwd, env: called.append(command[2:]) or 0)
    runner.test([])
    runner.test(["-k", "geometry"])
    assert called[2] == ["pytest", *runner.SIDE_BY_SIDE] and called[-1] == ["pytest", "-k", "geometry"]


def test_pages_have_an_environment_of_their_own_that_serves_the_demo(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = prepared(runner, monkeypatch)
    runner.prepare("docs", False)
    runner.prepare("demo", False)
    assert steps == ["torch", "[docs]"]
    runner.prepare("test", False)
    assert steps == ["torch", "[docs]", "torch", "[test]"]


def test_pages_are_built_with_warnings_as_errors(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    Path(runner.PYTHON).parent.mkdir(parents=True)
    Path(runner.PYTHON).touch()
    monkeypatch.setattr(runner.subprocess, "call", lambda command, cwd: called.append(command[1:]) or 0)
    runner.docs([])
    runner.docs(["serve"])
    assert called == [["-m", "mkdocs", "build", "--strict"], ["-m", "mkdocs", "serve"]]


def test_a_tool_without_an_environment_says_what_to_do(runner: ModuleType) -> None:
    with pytest.raises(runner.Problem, match="test --quick"):
        runner.tool(["mypy"])
