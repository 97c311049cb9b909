"""Far end of a tunnel, ``meddifffm worker``: starts a worker on the computer that it runs on and carries for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

from .client import worker_command, worker_environment
from .protocol import PrivateFolder
from .tunnel import Tunnel, carried, run_in_thread

_PATIENCE_SECONDS = 5.0  # for the network call in progress to return


def main() -> int:
    """Carry between standard input and output and a worker, until either ends; leaves nothing behind."""
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not come between messages
    folder = PrivateFolder()
    program, arguments = worker_command(sys.executable)
    worker = subprocess.Popen(
        [program, *arguments],
        env=worker_environment(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert worker.stdin is not None and worker.stdout is not None
    tunnel = Tunnel(worker.stdout, worker.stdin, sys.stdin.buffer, wire, folder)

    def ended() -> None:
        code = worker.wait()
        folder.remove()
        sys.stderr.flush()
        os._exit(code)  # the main thread waits for the client, which has no worker any more

    outward = run_in_thread(tunnel, tunnel.outward, ended)
    carried(tunnel, tunnel.inward)
    with contextlib.suppress(OSError):
        worker.stdin.close()
    outward.join(_PATIENCE_SECONDS)
    worker.kill()
    worker.wait()
    folder.remove()
    return 1


if __name__ == "__main__":
    sys.exit(main())
