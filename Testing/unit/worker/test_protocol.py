"""The protocol's words, and the client's state machine without any process."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedDiffFMLib import __version__
from MedDiffFMLib.core.errors import InputError, MedDiffFMError, MemoryShortage, OutputError
from MedDiffFMLib.core.progress import ProgressEvent
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.worker.client import (
    Callbacks,
    RunRequest,
    State,
    WorkerResult,
    WorkerSession,
    worker_command,
    worker_environment,
)
from MedDiffFMLib.worker.protocol import (
    FOLDER_PREFIX,
    PROTOCOL_VERSION,
    LineReader,
    PrivateFolder,
    ProtocolError,
    WorkerError,
    decode,
    encode,
    error_fields,
    error_from,
)

ROOT = Path(__file__).resolve().parents[3]


# Words


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)))), st.data())
def test_lines_survive_any_cutting(lines: list[str], data: st.DataObject) -> None:
    """Also in the middle of a UTF-8 character."""
    whole = "".join(line + "\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    reader = LineReader()
    heard = [line for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) for line in reader.feed(whole[a:b])]
    assert heard == [line for line in lines if line.strip()]


def test_endless_line_is_dropped_and_the_next_one_heard() -> None:
    reader = LineReader(maximum=10)
    heard = [line for part in (b"ok\n12345678", b"90123", b"456" * 100, b"\nnext\n") for line in reader.feed(part)]
    assert heard[0] == "ok" and isinstance(heard[1], ProtocolError) and heard[2:] == ["next"]


def test_messages_are_one_line_of_plain_json() -> None:
    line = encode("result", text="Zwei\nZeilen, 2 µm", row=[np.float32(1.5), np.int16(3), float("nan")], path=Path("a"))
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode(line.decode()) == {
        "type": "result",
        "text": "Zwei\nZeilen, 2 µm",
        "row": [1.5, 3, None],
        "path": "a",
    }


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "3", '{"kind": "x"}', '{"type": 3}', '{"type": "x", "y": NaN}', "[" * 10**5]
)
def test_nonsense_is_no_message(line: str) -> None:
    with pytest.raises(ProtocolError):
        decode(line)


@pytest.mark.parametrize("problem", [InputError("a", "b"), MemoryShortage("c"), WorkerError("d", "e", "busy")])
def test_errors_survive_the_way(problem: MedDiffFMError) -> None:
    again = error_from(decode(encode("error", **error_fields(problem)).decode()))
    assert type(again) is type(problem) and error_fields(again) == error_fields(problem)


# Folder


@pytest.mark.parametrize(
    "name", ["../x.npy", "/etc/x.npy", "a/b.npy", "a\\b.npy", "x", "x.npz", "..npy", "", None, 3, "a\0.npy"]
)
def test_names_cannot_lead_out_of_the_folder(name: Any, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError):
        PrivateFolder(tmp_path).file(name)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links and modes of Unix")
def test_links_and_shared_folders_are_refused(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "x.npy").symlink_to("/etc/passwd")
    with pytest.raises(ProtocolError):
        folder.file("x.npy")
    PrivateFolder.existing(str(folder.path))
    folder.path.chmod(0o755)
    with pytest.raises(ProtocolError, match="not a private folder"):
        PrivateFolder.existing(str(folder.path))
    folder.path.chmod(0o700)
    link = tmp_path / f"{FOLDER_PREFIX}link"
    link.symlink_to(folder.path)
    with pytest.raises(ProtocolError, match="not a private folder"):
        PrivateFolder.existing(str(link))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path)
    np.save(folder.path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    for mapped in (False, True):
        with pytest.raises(ProtocolError, match="cannot be read"):
            folder.load("x.npy", mapped=mapped)


def test_arrays_survive_and_mapped_ones_can_be_changed_alone(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path)
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    folder.save("x.npy", array.transpose(2, 0, 1))
    mapped = folder.load("x.npy", mapped=True)
    mapped[0] = 7
    np.testing.assert_array_equal(folder.load("x.npy"), array.transpose(2, 0, 1))


# Environment


def test_environment_for_the_own_and_for_a_foreign_python() -> None:
    base = {"PATH": "p", "PYTHONHOME": "/slicer", "PYTHONPATH": "/slicer/lib", "LD_LIBRARY_PATH": "/slicer/so"}
    own, foreign = worker_environment(base), worker_environment(base, foreign=True)
    assert own["PYTHONHOME"] == "/slicer" and own["PYTHONPATH"] == f"{ROOT}{os.pathsep}/slicer/lib"
    assert foreign["PYTHONPATH"] == str(ROOT) and foreign["PATH"] == "p"
    assert not {"PYTHONHOME", "LD_LIBRARY_PATH"} & foreign.keys()
    assert base["PYTHONPATH"] == "/slicer/lib", "the caller's own environment must stay as it is"
    assert worker_command("/x/python")[0] == "/x/python" and worker_command("p")[1][-1] == "MedDiffFMLib.worker.server"


# State machine


class Owner:
    """Stands where a QProcess would: records what the session wants and tells."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.killed = 0
        self.heard: list[Any] = []
        self.states: list[State] = []
        self.session = WorkerSession(
            lambda data: self.written.extend(json.loads(line) for line in data.splitlines()),
            self._kill,
            Callbacks(
                on_state=self.states.append,
                on_progress=self.heard.append,
                on_warning=self.heard.append,
                on_result=self.heard.append,
                on_error=self.heard.append,
                on_log=self.heard.append,
                on_cancelled=lambda: self.heard.append("cancelled"),
            ),
        )

    def _kill(self) -> None:
        self.killed += 1

    def start(self) -> Owner:
        self.session.starting()
        self.session.process_started()
        self.answer("hello", protocol=PROTOCOL_VERSION, package=__version__, python="3.12", torch="2", devices=[])
        return self

    def answer(self, kind: str, /, **fields: Any) -> None:
        self.session.feed(encode(kind, **fields))

    @property
    def folder(self) -> Path:
        return Path(self.written[0]["folder"])


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Owner:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Owner()


NOTHING: dict[str, Any] = {"tables": {}, "texts": {}, "facts": {}, "warnings": [], "report": {}}
REQUEST = RunRequest(RunSettings("denoise", {"steps": 2}), np.zeros((2, 3, 4), np.int16), np.eye(4))


def test_run_waits_for_the_start_and_gives_its_result(owner: Owner) -> None:
    owner.session.starting()
    owner.session.run(REQUEST)
    owner.session.process_started()
    assert [message["type"] for message in owner.written] == ["hello"]
    owner.answer("hello", protocol=PROTOCOL_VERSION, package=__version__, devices=[])
    run = owner.written[1]
    assert (run["type"], run["task"], run["parameters"]) == ("run", "denoise", {"steps": 2})
    assert np.load(owner.folder / run["inputs"]["volume"]["file"]).shape == (2, 3, 4)
    owner.answer("progress", id=run["id"], fraction=0.5, stage="denoising", seconds_left=None)
    np.save(owner.folder / "result-0.npy", np.ones(3))
    owner.answer("result", id=run["id"], volumes={"denoised": {"file": "result-0.npy", "ijk_to_ras": None}}, **NOTHING)
    event, result = owner.heard
    assert event == ProgressEvent(0.5, "denoising", None)
    assert isinstance(result, WorkerResult) and result.volumes["denoised"].sum() == 3
    assert owner.states == [State.STARTING, State.READY, State.RUNNING, State.READY]
    assert list(owner.folder.iterdir()) == [] and not owner.session.busy


def test_run_without_arrays_gets_a_result_that_says_where_it_lies(owner: Owner) -> None:
    owner.start().session.run(RunRequest(RunSettings("synthesize", {"spacing": 3})))
    run = owner.written[1]
    assert run["inputs"] == {} and list(owner.folder.iterdir()) == []
    np.save(owner.folder / "result-0.npy", np.ones(3))
    owner.answer("result", id=1, volumes={"synthetic": {"file": "result-0.npy", "ijk_to_ras": np.eye(4)}}, **NOTHING)
    assert (
        owner.heard[0].ijk_to_ras == {"synthetic": np.eye(4).tolist()}
        and owner.heard[0].volumes["synthetic"].sum() == 3
    )


def test_old_messages_of_another_run_are_not_heard(owner: Owner) -> None:
    owner.start().session.run(REQUEST)
    owner.answer("progress", id=99, fraction=0.5, stage="x", seconds_left=1)
    owner.answer("error", id=99, kind="input", cause="x", remedy="", exit_code=2)
    owner.answer("cancelled", id=99)
    assert owner.heard == [] and owner.session.state is State.RUNNING


def test_full_disk_leaves_the_worker_usable(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    owner.start()
    with monkeypatch.context() as patch:
        patch.setattr(
            np.lib.format, "write_array_header_1_0", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space"))
        )
        with pytest.raises(OutputError, match="No space"):
            owner.session.run(REQUEST)
    assert list(owner.folder.iterdir()) == [] and owner.session.state is State.READY and not owner.session.busy
    owner.session.run(REQUEST)
    owner.answer("warning", id=1, text="Memory ran out.")
    assert owner.session.state is State.RUNNING and owner.heard == ["Memory ran out."]


def test_cancel_asks_once_then_kills(owner: Owner) -> None:
    owner.start().session.run(REQUEST)
    owner.session.cancel()
    assert owner.session.state is State.CANCELLING and owner.written[-1]["type"] == "cancel" and not owner.killed
    owner.session.cancel()
    assert owner.killed == 1
    owner.session.process_finished(9, crashed=True)
    assert owner.heard == ["cancelled"] and owner.session.state is State.STOPPED and not owner.folder.exists()
    assert owner.start().session.state is State.READY


def test_cancel_before_the_worker_is_ready(owner: Owner) -> None:
    owner.session.starting()
    owner.session.run(REQUEST)
    owner.session.cancel()
    owner.session.process_started()
    owner.answer("hello", protocol=PROTOCOL_VERSION, package=__version__, devices=[])
    assert owner.heard == ["cancelled"] and len(owner.written) == 1 and owner.session.state is State.READY


def test_result_that_crosses_a_cancel_counts_as_cancelled(owner: Owner) -> None:
    owner.start().session.run(REQUEST)
    owner.session.cancel()
    owner.answer("result", id=owner.written[1]["id"], volumes={}, **NOTHING)
    assert owner.heard == ["cancelled"] and owner.session.state is State.READY


@pytest.mark.parametrize(
    ("code", "crashed", "kind", "words"),
    [
        (9, True, "memory", "killed"),
        (-9, True, "memory", "killed"),
        (11, True, "crash", "crashed"),
        (3, False, "crash", "code 3"),
    ],
)
def test_death_is_told_once_with_last_words(owner: Owner, code: int, crashed: bool, kind: str, words: str) -> None:
    owner.start().session.run(REQUEST)
    owner.session.feed_log("Traceback\nKeyError: 'Größe'\n".encode()[:-4])
    owner.session.feed_log("Traceback\nKeyError: 'Größe'\n".encode()[-4:])
    owner.heard.clear()
    owner.session.process_finished(code, crashed)
    owner.session.process_finished(code, crashed)
    (problem,) = owner.heard
    assert problem.kind == kind and words in problem.cause and problem.remedy
    assert kind == "memory" or "Größe" in problem.cause
    assert owner.session.state is State.FAILED and not owner.folder.exists() and not owner.session.busy


def test_start_timer_counts_only_for_its_own_start(owner: Owner) -> None:
    generation = owner.session.starting()
    owner.session.failed_to_start("no such file")
    assert owner.heard[-1].kind == "start" and "no such file" in owner.heard[-1].cause
    owner.session.starting()
    owner.session.start_timed_out(generation)
    assert owner.session.state is State.STARTING
    owner.session.start_timed_out(owner.session.generation)
    assert owner.session.state is State.FAILED and owner.heard[-1].kind == "timeout" and owner.killed == 1


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n",
        b'{"type": "dance"}\n',
        b'{"type": "progress"}\n',
        b'{"type": "result", "id": 1, "volumes": {"x": {"file": "../y.npy", "ijk_to_ras": null}}}\n',
    ],
)
def test_worker_that_leaves_the_protocol_is_ended(owner: Owner, line: bytes) -> None:
    owner.start().session.run(REQUEST)
    owner.session.feed(line + encode("pong"))
    (problem,) = owner.heard
    assert isinstance(problem, ProtocolError) and problem.remedy
    assert owner.session.state is State.FAILED and owner.killed == 1 and not owner.folder.exists()


def test_other_version_is_refused(owner: Owner) -> None:
    owner.session.starting()
    owner.session.process_started()
    owner.answer("hello", protocol=PROTOCOL_VERSION, package="9.9", devices=[])
    assert owner.heard[0].kind == "version" and "9.9" in owner.heard[0].cause and __version__ in owner.heard[0].cause
    assert owner.session.state is State.FAILED and owner.killed == 1


def test_error_without_run_means_the_worker_cannot_work(owner: Owner) -> None:
    owner.session.starting()
    owner.session.run(REQUEST)
    owner.session.process_started()
    owner.answer("error", id=None, kind="dependency", cause="python lacks torch.", remedy="Install it.", exit_code=3)
    owner.session.process_finished(3, crashed=False)
    (problem,) = owner.heard
    assert problem.kind == "dependency" and owner.session.state is State.FAILED


def test_second_run_is_refused_while_busy(owner: Owner) -> None:
    owner.start().session.run(REQUEST)
    with pytest.raises(WorkerError, match="busy"):
        owner.session.run(REQUEST)
    owner.session.shutdown()
    owner.session.process_finished(0, crashed=False)
    with pytest.raises(WorkerError, match="not running"):
        owner.session.run(REQUEST)
    assert owner.session.state is State.STOPPED and owner.heard == ["cancelled"]
