"""The worker as a real process: runs, cancel, every way to die, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.core.errors import Cancelled, DependencyError, InputError, MedDiffFMError, ModelError
from MedDiffFMLib.core.progress import CancelToken, ProgressEvent
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.models.checkpoint import load_model
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.tasks.base import Case, Run
from MedDiffFMLib.tasks.denoise.spec import Denoise
from MedDiffFMLib.worker.client import RunRequest, State, worker_command, worker_environment
from MedDiffFMLib.worker.protocol import FOLDER_PREFIX, PROTOCOL_VERSION, ProtocolError, WorkerError
from MedDiffFMLib.worker.transport import WorkerClient

posix = pytest.mark.skipif(os.name != "posix", reason="signals of Unix")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A temporary folder of our own, so that everything left behind is seen."""
    folder = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def worker(scratch: Path) -> Iterator[WorkerClient]:
    """One warm worker for the whole file; the tests that kill it prove that it comes back."""
    with WorkerClient() as client:
        yield client
    assert list(scratch.glob(f"{FOLDER_PREFIX}*")) == []


@pytest.fixture
def request_for(small_ct: Volume, tiny_model_file: Path) -> Callable[..., RunRequest]:
    """Makes a denoising request; ``steps`` sets how long it takes."""

    def make(steps: int = 1, **changes: object) -> RunRequest:
        arrays = {name: changes.pop(name) for name in ("voxels", "mask") if name in changes}
        settings = {
            "task": "denoise",
            "parameters": {"noise": 20.0, "steps": steps},
            "model": str(tiny_model_file),
            "device": "cpu",
            "threads": 1,
            **changes,
        }
        return replace(RunRequest(RunSettings(**settings), small_ct.voxels, small_ct.ijk_to_ras), **arrays)

    return make


def alive(process: int) -> bool:
    """True while a process runs; one that ended but was not collected by init yet counts as dead."""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.slow
def test_hello_tells_what_the_other_python_offers(worker: WorkerClient) -> None:
    hello = worker.start()
    assert hello["protocol"] == PROTOCOL_VERSION and hello["process"] == worker.process_id
    assert hello["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "cpu" in [device["name"] for device in hello["devices"]] and hello["torch"]


@pytest.mark.slow
def test_result_is_that_of_the_library_bit_for_bit(
    worker: WorkerClient, request_for: Callable[..., RunRequest], small_ct: Volume, tiny_model_file: Path
) -> None:
    import torch

    seen: list[ProgressEvent] = []
    result = worker.run(request_for(steps=4), progress=seen.append)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = load_model(str(tiny_model_file), device="cpu")
        direct = Denoise(noise=20.0, steps=4).run(Case(small_ct), Run(model))
    finally:
        torch.set_num_threads(threads)
    assert list(result.volumes) == list(direct.volumes) == ["denoised", "noise"]
    for name, array in direct.volumes.items():
        assert result.volumes[name].dtype == array.dtype
        np.testing.assert_array_equal(result.volumes[name], array)
    assert np.abs(result.volumes["noise"]).max() > 0
    assert result.facts == json.loads(json.dumps(direct.facts))
    assert result.report["model"]["sha256"] and result.report["threads"] == 1
    assert "Research use only" in result.report["notice"]
    fractions = [event.fraction for event in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and seen[0].stage == "reading"


@pytest.mark.slow
def test_synthesis_needs_no_volume(worker: WorkerClient, small_ct: Volume, tiny_model_file: Path) -> None:
    quick = {"size": [60, 60, 65], "spacing": 2.5, "whole_steps": 1}
    common = {"model": str(tiny_model_file), "device": "cpu", "threads": 1}
    request = RunRequest(RunSettings("synthesize", quick, seed=5, **common))
    free = worker.run(request)
    assert free.volumes["synthetic"].shape == (26, 24, 24) and free.volumes["synthetic"].dtype == np.int16
    assert np.allclose(np.array(free.ijk_to_ras["synthetic"]) @ [11.5, 11.5, 12.5, 1], [0, 0, 0, 1])
    assert free.report["synthetic"] is True and free.report["inputs"] == {}
    np.testing.assert_array_equal(worker.run(request).volumes["synthetic"], free.volumes["synthetic"])

    labels = np.where(small_ct.voxels > -500, 118, 0).astype(np.uint8)
    settings = RunSettings("synthesize", {"whole_steps": 1}, **common)
    body = RunRequest(settings, None, small_ct.ijk_to_ras, anatomy=labels)
    shaped = worker.run(body)
    assert shaped.volumes["synthetic"].shape == labels.shape
    assert np.array_equal(shaped.ijk_to_ras["synthetic"], small_ct.ijk_to_ras)
    assert shaped.report["inputs"]["anatomy"]["source"] == "memory"
    with pytest.raises(InputError, match="takes none"):
        worker.run(replace(body, voxels=small_ct.voxels))


@pytest.mark.slow
def test_worker_stays_warm_and_clean(
    worker: WorkerClient, request_for: Callable[..., RunRequest], scratch: Path
) -> None:
    worker.run(request_for())
    process = worker.process_id
    worker.run(request_for())
    assert worker.process_id == process and worker.state is State.READY
    (folder,) = scratch.glob(f"{FOLDER_PREFIX}*")
    assert list(folder.iterdir()) == [], "arrays of finished runs were left"
    if os.name == "posix":
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"task": "unknown"}, InputError, "no task 'unknown'"),
        ({"parameters": {"strength": 99}}, InputError, "strength is 99"),
        ({"parameters": {"strange": 1}}, InputError, "Unknown parameter 'strange'"),
        ({"parameters": {"steps": "many"}}, InputError, "steps is 'many'"),
        ({"model": "no-such-model"}, ModelError, "no-such-model"),
        ({"model": "/nowhere/weights.safetensors"}, ModelError, "no weight file"),
        ({"voxels": np.zeros((8, 9, 10), np.int16)}, InputError, "same value"),
        ({"mask": np.ones((40, 48, 44), bool)}, InputError, "uses no mask"),
        ({"voxels": None}, InputError, "needs a CT"),
        ({"seed": "one"}, InputError, "seed is 'one'"),
    ],
    ids=["task", "limit", "name", "type", "catalogue", "file", "voxels", "mask", "none", "seed"],
)
def test_refused_requests_leave_the_worker_usable(
    worker: WorkerClient,
    request_for: Callable[..., RunRequest],
    changes: dict[str, object],
    kind: type[MedDiffFMError],
    words: str,
) -> None:
    worker.start()
    process = worker.process_id
    with pytest.raises(kind) as caught:
        worker.run(request_for(**changes))
    assert type(caught.value) is kind and words in caught.value.cause and caught.value.remedy
    assert worker.process_id == process and worker.state is State.READY


@pytest.mark.slow
def test_cancel_half_way_then_run(worker: WorkerClient, request_for: Callable[..., RunRequest]) -> None:
    cancel, seen = CancelToken(), []

    def progress(event: ProgressEvent) -> None:
        seen.append(event.fraction)
        if event.fraction >= 0.1:
            cancel.cancel()

    with pytest.raises(Cancelled):
        worker.run(request_for(steps=100), progress=progress, cancel=cancel)
    assert max(seen) < 0.9, "it was computed to the end"
    process = worker.process_id
    assert worker.run(request_for()).volumes and worker.process_id == process


@pytest.mark.slow
@posix
def test_kill_9_then_run(worker: WorkerClient, request_for: Callable[..., RunRequest], scratch: Path) -> None:
    def kill(event: ProgressEvent) -> None:
        if event.fraction > 0:
            os.kill(worker.process_id or 0, signal.SIGKILL)

    with pytest.raises(WorkerError, match="killed") as caught:
        worker.run(request_for(steps=100), progress=kill)
    assert caught.value.kind == "memory" and worker.state is State.FAILED
    assert list(scratch.glob(f"{FOLDER_PREFIX}*")) == []
    assert worker.run(request_for()).volumes


@pytest.mark.slow
@posix
def test_death_between_runs_is_noticed(worker: WorkerClient, request_for: Callable[..., RunRequest]) -> None:
    worker.start()
    process = worker.process_id or 0
    os.kill(process, signal.SIGKILL)
    assert wait_for(lambda: not alive(process))
    time.sleep(0.1)
    assert worker.run(request_for()).volumes and worker.process_id != process


@pytest.mark.slow
def test_submit_in_background(worker: WorkerClient, request_for: Callable[..., RunRequest]) -> None:
    assert worker.submit(request_for()).result(timeout=60).volumes["denoised"].shape == (40, 48, 44)


@pytest.mark.slow
@posix
def test_worker_ends_and_cleans_when_its_client_is_killed(
    scratch: Path, small_ct_file: Path, tiny_model_file: Path
) -> None:
    """kill -9 of the program in the middle of a run: no orphan, no folder."""
    program = f"""
        from MedDiffFMLib.imaging.io import read_volume
        from MedDiffFMLib.runner.settings import RunSettings
        from MedDiffFMLib.worker.exchange import RunRequest
        from MedDiffFMLib.worker.transport import WorkerClient
        volume = read_volume({str(small_ct_file)!r})
        client = WorkerClient()
        print(client.start()["process"], flush=True)
        settings = RunSettings("denoise", {{"noise": 20.0, "steps": 100}}, model={str(tiny_model_file)!r}, device="cpu")
        request = RunRequest(settings, volume.voxels, volume.ijk_to_ras)
        client.run(request, progress=lambda event: print(event.fraction, flush=True))
    """
    folders = set(scratch.glob(f"{FOLDER_PREFIX}*"))
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        env=worker_environment(os.environ),
    )
    assert child.stdout is not None
    process = int(child.stdout.readline())
    while float(child.stdout.readline()) == 0:
        pass
    assert alive(process) and set(scratch.glob(f"{FOLDER_PREFIX}*")) - folders
    child.kill()
    child.wait()
    child.stdout.close()
    assert wait_for(lambda: not alive(process)), "an orphan is left"
    assert wait_for(lambda: set(scratch.glob(f"{FOLDER_PREFIX}*")) == folders), "the folder is left"


# The server alone, spoken to by hand


class Talk:
    """A server process and the lines to and from it."""

    def __init__(self) -> None:
        program, arguments = worker_command(sys.executable)
        self.process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=worker_environment(os.environ),
        )

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, object]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def talk() -> Iterator[Talk]:
    spoken = Talk()
    with spoken.process:
        yield spoken
        spoken.process.kill()


def test_server_survives_nonsense(talk: Talk) -> None:
    for nonsense in ("{broken", "[1, 2]", '{"type": 7}', '{"type": "dance"}', '{"type": "run", "id": 1}', "\xff" * 10):
        talk.say(nonsense)
        answer = talk.hear()
        assert (answer["type"], answer["kind"], answer["id"]) == ("error", "protocol", None)
    talk.say('{"type": "ping", "text": "' + "x" * 5_000_000 + '"}')
    assert "longer than" in str(talk.hear()["cause"])
    talk.say('{"type": "ping"}')
    assert talk.hear() == {"type": "pong"}


@pytest.mark.parametrize(
    "hello", [{"protocol": 0, "package": "0.0.1"}, {"protocol": PROTOCOL_VERSION, "package": "9.9"}]
)
def test_server_refuses_another_version(talk: Talk, hello: dict[str, object]) -> None:
    talk.say(json.dumps({"type": "hello", "folder": "/tmp", **hello}))
    answer = talk.hear()
    assert answer["kind"] == "version" and str(hello["package"]) in str(answer["cause"]) and answer["remedy"]
    assert talk.process.wait(10) == 3


def test_server_enters_no_foreign_folder(talk: Talk, tmp_path: Path) -> None:
    from MedDiffFMLib import __version__

    keep = tmp_path / "keep"
    keep.mkdir()
    talk.say(json.dumps({"type": "hello", "protocol": PROTOCOL_VERSION, "package": __version__, "folder": str(keep)}))
    assert talk.hear()["kind"] == "protocol"
    assert talk.process.wait(10) == 3 and keep.is_dir(), "a folder that is not ours must not be deleted"


# Pythons that are no worker


def script(path: Path, body: str) -> str:
    """An executable that is taken for a Python."""
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
@posix
@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("import sys; sys.exit('ImportError: no such thing')", WorkerError, "exit code 1. Its last words: ImportError"),
        ("import os; os.abort()", WorkerError, "crashed"),
        ("print('Welcome to my shell!', flush=True); input()", ProtocolError, "Welcome to my shell"),
        ("import time; time.sleep(60)", WorkerError, "did not answer within"),
        ("import sys; sys.stdout.write('x' * 5_000_000); sys.stdout.flush(); input()", ProtocolError, "longer than"),
        ("""print('{"type": "hello", "protocol": 0, "package": "0.0"}', flush=True); input()""", WorkerError, "0.0"),
        ("""print('{"type": "hello"}', flush=True); input()""", ProtocolError, "not well formed"),
    ],
    ids=["exit code", "crash", "no protocol", "silence", "endless line", "old version", "odd hello"],
)
def test_failing_start_is_explained(
    body: str, kind: type[MedDiffFMError], words: str, tmp_path: Path, scratch: Path
) -> None:
    folders = set(scratch.glob(f"{FOLDER_PREFIX}*"))
    patience = 1.5 if "sleep" in body else 60
    with WorkerClient(script(tmp_path / "python", body), start_seconds=patience) as client:
        with pytest.raises(kind) as caught:
            client.start()
        assert type(caught.value) is kind and words in str(caught.value) and caught.value.remedy
        assert client.state is State.FAILED and set(scratch.glob(f"{FOLDER_PREFIX}*")) == folders


def test_missing_executable_is_explained(tmp_path: Path) -> None:
    with WorkerClient(str(tmp_path / "nothing")) as client, pytest.raises(WorkerError, match="nothing") as caught:
        client.start()
    assert caught.value.kind == "start" and caught.value.exit_code == 3


def test_python_without_torch_is_named(tmp_path: Path) -> None:
    """A fresh virtual environment has nothing but the standard library."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = tmp_path / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    with WorkerClient(str(python)) as client, pytest.raises(DependencyError) as caught:
        client.start()
    assert "torch" in caught.value.cause and "numpy" in caught.value.cause and "pip install" in caught.value.remedy
