"""A worker over SSH, through a real sshd on loopback: same results, every way to lose it, and nothing left behind."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedDiffFMLib.cli.main import main
from MedDiffFMLib.core.errors import Cancelled, InputError, ModelError
from MedDiffFMLib.core.progress import CancelToken
from MedDiffFMLib.imaging.volume import Volume
from MedDiffFMLib.runner.settings import RunSettings
from MedDiffFMLib.worker.exchange import RunRequest
from MedDiffFMLib.worker.protocol import FOLDER_PREFIX, ProtocolError, WorkerError
from MedDiffFMLib.worker.transport import WorkerClient

SSHD = shutil.which("sshd", path=f"/usr/sbin:/usr/local/sbin:{os.environ.get('PATH', '')}")
ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        SSHD is None or shutil.which("ssh-keygen") is None or not hasattr(os, "getuid"),
        reason="needs OpenSSH's server (Debian: openssh-server)",
    ),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


class Server:
    """An sshd of our own, its client's configuration, and a ``meddifffm`` with a greeting in front."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "far").mkdir()
        host, mine = key(folder / "host"), key(folder / "mine")
        shutil.copy(mine.with_suffix(".pub"), folder / "authorized")
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {host}\nAuthorizedKeysFile {folder / 'authorized'}\n"
            f"PidFile {folder / 'pid'}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        )
        (folder / "ssh_config").write_text(
            f"Host lab\n  HostName 127.0.0.1\n  Port {self.port}\n  User {getpass.getuser()}\n  IdentityFile {mine}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder / 'known'}\n  StrictHostKeyChecking accept-new\n"
        )
        self._script("bin/ssh", f'exec {shutil.which("ssh")} -F {folder / "ssh_config"} "$@"')
        python = f"TMPDIR={folder / 'far'} PYTHONPATH={ROOT} exec {sys.executable} -m MedDiffFMLib"
        self.program = self._script("meddifffm", f'echo "Welcome to the lab"\n{python} "$@"')
        self.start()

    def _script(self, name: str, line: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
        return path

    @property
    def address(self) -> str:
        return f"ssh://lab{self.program}"

    def start(self) -> None:
        assert SSHD is not None
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd of root wants it
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert b"listening" in line.lower(), line

    def connections(self) -> list[int]:
        """Processes that serve a connection of this sshd, and of none by which somebody works here."""
        ask = ["ps", "-eo", "pid=,ppid=,args="]
        listed = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        rows = [(int(pid), int(parent), args) for pid, parent, args in (r.split(None, 2) for r in listed.splitlines())]
        parents = {pid: parent for pid, parent, _ in rows}

        def is_ours(pid: int) -> bool:
            while pid in parents and pid != self.process.pid:
                pid = parents[pid]
            return pid == self.process.pid

        mine = f"{getpass.getuser()}@notty"
        return [pid for pid, _, args in rows if "sshd" in args and mine in args and is_ours(pid)]

    def left(self) -> list[Path]:
        """Folders that workers left there."""
        return list((self.folder / "far").glob(f"{FOLDER_PREFIX}*"))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("ssh")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "near").mkdir()
        patch.setenv("TMPDIR", str(folder / "near"))
        patch.setattr(tempfile, "tempdir", str(folder / "near"))
        server = Server(folder)
        patch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        yield server
        server.stop()
    assert list((folder / "near").glob(f"{FOLDER_PREFIX}*")) == []


@pytest.fixture(scope="module")
def worker(server: Server) -> Iterator[WorkerClient]:
    with WorkerClient(server.address) as client:
        yield client
    wait_until(lambda: not server.left())


@pytest.fixture
def request_for(small_ct: Volume, tiny_model_file: Path) -> Callable[..., RunRequest]:
    def make(steps: int = 1, **changes: object) -> RunRequest:
        settings = {
            "task": "denoise",
            "parameters": {"noise": 20.0, "steps": steps},
            "model": str(tiny_model_file),
            "device": "cpu",
            "threads": 1,
            **changes,
        }
        return RunRequest(RunSettings(**settings), small_ct.voxels, small_ct.ijk_to_ras)

    return make


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_same_bits_as_from_a_worker_here(
    server: Server, worker: WorkerClient, request_for: Callable[..., RunRequest]
) -> None:
    stages = set()
    with WorkerClient() as here:
        expected = here.run(request_for())
    for _ in range(2):  # warm the second time
        found = worker.run(request_for(), progress=lambda event: stages.add(re.sub(r" \(.*", "", event.stage)))
        assert found.volumes.keys() == expected.volumes.keys()
        for name, array in expected.volumes.items():
            assert found.volumes[name].dtype == array.dtype and np.array_equal(found.volumes[name], array)
    assert {"sending", "loading the model", "denoising"} <= stages
    (folder,) = server.left()
    assert list(folder.iterdir()) == [], "arrays of runs that are over"


def test_refusals_come_in_the_workers_words(worker: WorkerClient, request_for: Callable[..., RunRequest]) -> None:
    with pytest.raises(ModelError, match="There is no model"):
        worker.run(request_for(model="nowhere"))
    request = request_for()
    empty = replace(request, voxels=request.voxels[:, :1])
    with pytest.raises(InputError):
        worker.run(empty)
    assert worker.run(request_for()).volumes


def test_cancel_reaches_the_other_computer(worker: WorkerClient, request_for: Callable[..., RunRequest]) -> None:
    token = CancelToken()
    with pytest.raises(Cancelled):
        worker.run(
            request_for(steps=100),
            progress=lambda event: token.cancel() if event.stage == "denoising" else None,
            cancel=token,
        )
    assert worker.run(request_for()).volumes


def test_a_lost_connection_is_a_crash_and_the_next_run_connects_again(
    server: Server, worker: WorkerClient, request_for: Callable[..., RunRequest]
) -> None:
    def cut(event: object) -> None:
        for process in server.connections():
            os.kill(process, 9)

    with pytest.raises(WorkerError, match="ended with exit code 255") as caught:
        worker.run(request_for(steps=100), progress=cut)
    assert caught.value.kind == "crash"
    assert worker.run(request_for()).volumes
    wait_until(lambda: len(server.left()) == 1)  # of the connection that is there


def test_what_cannot_be_reached_is_said_in_opensshs_words(server: Server) -> None:
    for address, words in (
        (f"ssh://127.0.0.1:{free_port()}", "Connection refused"),
        ("ssh://lab/no/such/program", "No such file|not found"),
    ):
        with WorkerClient(address) as client, pytest.raises(WorkerError, match=words):
            client.start()


def test_command_line_and_batch(
    server: Server, small_ct_file: Path, tiny_model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of this computer, computed there; the same bytes as here; what is done is not done again."""
    options = ["--noise", "20", "--model", str(tiny_model_file), "--device", "cpu", "--threads", "1", "--quiet"]
    for name, more in (("here", []), ("there", ["--worker", server.address])):
        assert main(["denoise", str(small_ct_file), "-o", str(tmp_path / name), *options, *more]) == 0
    reports = [json.loads((tmp_path / name / "chest_denoise.json").read_text()) for name in ("here", "there")]
    assert reports[0]["outputs"] == reports[1]["outputs"] and reports[0]["inputs"] == reports[1]["inputs"]
    batch = ["denoise", "--batch", str(small_ct_file), "-o", str(tmp_path / "there"), *options, "--json"]
    capsys.readouterr()
    assert main([*batch, "--worker", server.address]) == 0
    assert json.loads(capsys.readouterr().out)["cases"][0]["status"] == "skipped"


@pytest.mark.parametrize(
    "address", ["ssh://", "ssh://-oProxyCommand=x", "ssh://a:b@host", "ssh://host:port", "http://host", "ssh://h?x=1"]
)
def test_what_is_no_address_is_refused(
    address: str, small_ct_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["denoise", str(small_ct_file), "-o", str(tmp_path), "--worker", address]) == 2
    assert "address" in capsys.readouterr().err


def test_the_other_end_cannot_write_outside_of_the_folder(tmp_path: Path) -> None:
    """Names are checked, sizes too, and a bomb is no array."""
    import io
    import zlib

    from MedDiffFMLib.worker.protocol import PrivateFolder, encode
    from MedDiffFMLib.worker.tunnel import PORTION, Tunnel

    folder = PrivateFolder(tmp_path)
    good, bomb = zlib.compress(b"x" * 10), zlib.compress(bytes(4 * PORTION))
    for name, size, packed in (
        ("../outside.npy", 10, good),
        ("short.npy", 11, good),
        ("bomb.npy", 4 * PORTION, bomb),
        ("noise.npy", 10, b"abc"),
        ("cut.npy", 10, None),
    ):
        frame = b"\0\0\0\7abc" if packed is None else len(packed).to_bytes(4, "big") + packed + bytes(4)
        wire = io.BytesIO(encode("array", file=name, bytes=size) + frame)
        with pytest.raises(ProtocolError):
            Tunnel(io.BytesIO(), io.BytesIO(), wire, io.BytesIO(), folder).inward()
    assert [path for path in tmp_path.iterdir() if path != folder.path] == []
