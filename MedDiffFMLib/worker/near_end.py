"""Near end of a tunnel, ``python -m MedDiffFMLib.worker.near_end ssh://user@host``: started in a worker's place.

To its client it is a worker like any other: a lost connection is a worker that ended, with OpenSSH's words as its last.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from ..core.errors import MedDiffFMError
from .address import parse_address, ssh_command
from .client import program_environment
from .tunnel import Tunnel, carried, run_in_thread

_PATIENCE_SECONDS = 10.0  # for the other end to clean up


def main(address: str) -> int:
    """Carry until client or connection end; gives OpenSSH's exit code, which is the worker's or 255."""
    try:
        command = ssh_command(parse_address(address))
    except MedDiffFMError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the client too, which decides
    connection = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=program_environment(os.environ),
        start_new_session=True,  # where Ctrl-C does not end it
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    assert connection.stdin is not None and connection.stdout is not None
    tunnel = Tunnel(sys.stdin.buffer, sys.stdout.buffer, connection.stdout, connection.stdin)

    def lost() -> None:
        code = connection.wait()
        sys.stderr.flush()
        os._exit(code)  # the main thread waits for the client, which says no more

    inward = run_in_thread(tunnel, tunnel.inward, lost)
    carried(tunnel, tunnel.outward)
    with contextlib.suppress(OSError):
        connection.stdin.close()
    inward.join(_PATIENCE_SECONDS)
    connection.kill()
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) == 2 else ""))
