"""What can go wrong, each as a change to a process at its start or an attack on it while it runs.

A fault is drawn with :func:`draw` from a random generator alone, so that its number and the seed name it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .process import Place, Process

MOUNTED: list[Path] = []


@dataclass
class Fault:
    """One fault.

    Attributes:
        kind: in the table.
        before: done in the child before its work begins.
        during: done from outside while it runs; gets the process and the usual duration of the command in seconds.
        place: changes where the command works, before anything lies there.
        armed: done before the command starts, once everything lies there.
        damage: changes the weight file that the command uses.
        twins: processes that do the same at the same time.
        after: ends the fault, before the next call.
        must_end: the exit codes that are right; None for any of done, refused and killed.
        detail: what was drawn, in words.
    """

    kind: str
    before: list[Callable[[], None]] = field(default_factory=list)
    during: Callable[[Process, float], None] = lambda _process, _seconds: None
    place: Callable[[Place], Place] = lambda place: place
    armed: Callable[[], None] = lambda: None
    damage: Callable[[bytes], bytes] | None = None
    twins: int = 1
    after: Callable[[], None] = lambda: None
    must_end: tuple[int, ...] | None = None
    detail: str = ""


def draw(kind: str, rng: random.Random, functions: Sequence[tuple[str, str]]) -> Fault:
    """A fault of a kind.

    Args:
        functions: where memory may run out, module and name.
    """
    return _memory_injected(rng, functions) if kind == "memory-injected" else _KINDS[kind](rng)


# Processes and memory


def _kill(rng: random.Random) -> Fault:
    moment = rng.random()

    def kill(process: Process, seconds: float) -> None:
        process.wait(moment * seconds)
        process.kill()

    return Fault("kill -9", during=kill, detail=f"after {moment:.0%} of the usual time")


def _memory_limit(rng: random.Random) -> Fault:
    room = int(rng.uniform(0, 60) * 2**20)

    def limit() -> None:
        import resource

        status = Path("/proc/self/status").read_text(encoding="ascii")
        now = int(status.split("VmSize:")[1].split()[0]) << 10
        resource.setrlimit(resource.RLIMIT_AS, (now + room,) * 2)

    return Fault("memory limit", before=[limit], detail=f"{room >> 20} MB more than at the start")


def _memory_injected(rng: random.Random, functions: Sequence[tuple[str, str]]) -> Fault:
    module, name = rng.choice(functions)
    call, kind = rng.randrange(1, 5), rng.choice(["MemoryError", "RuntimeError"])

    def inject() -> None:
        error = MemoryError() if kind == "MemoryError" else RuntimeError("DefaultCPUAllocator: can't allocate memory")
        _fail_at_call(module, name, call, error)

    return Fault("memory, injected", before=[inject], detail=f"{kind} in call {call} of {name}")


def _fail_at_call(module: str, name: str, number: int, error: Exception) -> None:
    """Let one call of a function fail."""
    import importlib

    holder: Any = importlib.import_module(module)
    *classes, function = name.split(".")
    for part in classes:
        holder = getattr(holder, part)
    original, calls = getattr(holder, function), 0

    def failing(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        return original(*given, **named)

    setattr(holder, function, failing)


# Disks


def _full_disk(rng: random.Random) -> Fault:
    size = int(2 ** rng.uniform(12, 19))

    def small(place: Place) -> Place:
        for folder in (place.output, place.models):
            _mount(folder, f"size={max(size, 4096)}")
        return place

    def grow() -> None:
        for folder in MOUNTED:
            _remount(folder, "size=512m")

    if can_mount():
        return Fault("full disk", place=small, after=grow, detail=f"tmpfs of {size >> 10} kB")
    return _file_limit(rng)


def _file_limit(rng: random.Random) -> Fault:
    size = int(2 ** rng.uniform(12, 16))

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return Fault("file limit", before=[limit], detail=f"files of at most {size} bytes")


def _full_temporary(rng: random.Random) -> Fault:
    size = int(2 ** rng.uniform(12, 17))

    def small(place: Place) -> Place:
        _mount(place.temporary, f"size={size}")
        return place

    def grow() -> None:
        for folder in MOUNTED:
            _remount(folder, "size=512m")

    return (
        Fault("full temporary folder", place=small, after=grow, detail=f"{size >> 10} kB")
        if can_mount()
        else (_file_limit(rng))
    )


def _read_only(rng: random.Random) -> Fault:
    moment = rng.choice((0.0, rng.random()))
    held: list[Place] = []

    def prepare(place: Place) -> Place:
        held.append(place)
        if can_mount():
            for folder in (place.output, place.models):
                _mount(folder, "size=512m")
        return place

    def arm() -> None:
        if moment == 0:
            _forbid(held[0])

    def forbid(process: Process, seconds: float) -> None:
        if moment:
            process.wait(moment * seconds)
            _forbid(held[0])

    def allow() -> None:
        for folder in (held[0].output, held[0].models):
            _remount(folder, "rw") if folder in MOUNTED else folder.chmod(0o755)

    return Fault("read-only folder", place=prepare, armed=arm, during=forbid, after=allow, detail=f"after {moment:.0%}")


def _forbid(place: Place) -> None:
    for folder in (place.output, place.models):
        if folder not in MOUNTED:
            folder.chmod(0o555)
            continue
        for _ in range(200):  # refused while a file is open for writing
            if _remount(folder, "ro"):
                break
            time.sleep(0.002)


def can_mount() -> bool:
    """Whether this user may mount a tmpfs."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


def _mount(folder: Path, options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    MOUNTED.append(folder)


def _remount(folder: Path, options: str) -> bool:
    command = ["mount", "-o", f"remount,{options}", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def unmount() -> None:
    """Take away everything that was mounted."""
    while MOUNTED:
        subprocess.run(["umount", "-l", str(MOUNTED.pop())], capture_output=True)


# Weights


def _truncated(rng: random.Random) -> Fault:
    share = rng.random()
    return Fault(
        "truncated weights",
        damage=lambda data: data[: int(len(data) * share)],
        must_end=(2, 3),
        detail=f"to {share:.0%}",
    )


def _flipped(rng: random.Random) -> Fault:
    place, bit = rng.random(), rng.randrange(8)

    def flip(data: bytes) -> bytes:
        at = int(len(data) * place)
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]

    return Fault("flipped bit in weights", damage=flip, must_end=(2, 3), detail=f"at {place:.0%}")


# Time, others, streams, names


def _clock(rng: random.Random) -> Fault:
    seed, calls = rng.random(), rng.randrange(1, 12)

    def jump() -> None:
        real, chance, offset, count = time.time, random.Random(seed), 0.0, 0

        def jumping() -> float:
            nonlocal offset, count
            count += 1
            if count % calls == 0:
                offset = chance.choice((-1, 1)) * 10 ** chance.uniform(0, 9)
            return max(real() + offset, 0.0)

        time.time = jumping

    return Fault("clock jumps", before=[jump], must_end=(0,), detail=f"every {calls} looks at the clock")


def _twins(rng: random.Random) -> Fault:
    return Fault("two at once", twins=2, detail="same command, same folders")


def _broken_pipe(rng: random.Random) -> Fault:
    number, characters = rng.choice((1, 2)), rng.choice((0, 1, 40, 400))
    read, write = os.pipe()

    def connect() -> None:
        os.close(read)
        os.dup2(write, number)
        os.close(write)

    def leave(process: Process, seconds: float) -> None:
        os.close(write)
        with contextlib.suppress(OSError):
            if characters:
                os.read(read, characters)
        os.close(read)

    return Fault(
        "broken pipe",
        before=[connect],
        during=leave,
        must_end=(0,),
        detail=f"{('standard output', 'standard error')[number - 1]} after {characters} bytes",
    )


def _slow_pipe(rng: random.Random) -> Fault:
    number, size = rng.choice((1, 2)), rng.choice((1, 7, 64))
    read, write = os.pipe()

    def connect() -> None:
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        os.close(read)
        os.dup2(write, number)
        os.close(write)

    def sip(process: Process, seconds: float) -> None:
        os.close(write)
        while os.read(read, size):
            time.sleep(0.0005)
        os.close(read)

    return Fault(
        "slow pipe",
        before=[connect],
        during=sip,
        must_end=(0,),
        detail=f"{('standard output', 'standard error')[number - 1]}, {size} bytes at a time",
    )


def _closed(rng: random.Random) -> Fault:
    numbers = rng.choice(((1,), (2,), (1, 2)))

    def close() -> None:
        for number in numbers:
            os.close(number)
            setattr(sys, ("stdout", "stderr")[number - 1], None)  # as Python does at its start
            os.open(os.devnull, os.O_RDONLY)  # the number must not be taken by another file

    return Fault("closed streams", before=[close], must_end=(0,), detail=f"numbers {numbers}")


def _names(rng: random.Random) -> Fault:
    kind = rng.choice(("unicode", "long", "longest", "too long"))
    names = {
        "unicode": "Прøbe 肺 🫁 e\u0301 'x' \"y\" %s $(z) -o",
        "long": "/".join(["n" * 200] * 4),
        "longest": "n" * 255,
        "too long": "n" * 256,
    }

    def rename(place: Place) -> Place:
        output = place.output / names[kind]
        return Place(output, place.temporary, place.models / names[kind])

    ends = (2,) if kind == "too long" else (0,)
    return Fault("odd names", place=rename, must_end=ends, detail=f"{kind} folders")


def _terminated(rng: random.Random) -> Fault:
    moment, number = rng.random(), rng.choice((signal.SIGTERM, signal.SIGINT))

    def interrupt(process: Process, seconds: float) -> None:
        process.wait(moment * seconds)
        for _ in range(rng.choice((1, 2))):
            with contextlib.suppress(ProcessLookupError):
                if process.code is None:
                    os.kill(process.id, number)
            process.wait(0.05)

    return Fault("interrupt", during=interrupt, detail=f"{signal.Signals(number).name} after {moment:.0%}")


def die_with_parent() -> None:
    """Let the kernel end this process with its parent: a killed suite leaves nothing behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


_KINDS: dict[str, Callable[[random.Random], Fault]] = {
    "kill": _kill, "memory-limit": _memory_limit, "full-disk": _full_disk,
    "file-limit": _file_limit, "full-temporary": _full_temporary, "read-only": _read_only, "truncated": _truncated,
    "flipped": _flipped, "clock": _clock, "twins": _twins, "broken-pipe": _broken_pipe, "slow-pipe": _slow_pipe,
    "closed": _closed, "names": _names, "interrupt": _terminated,
}  # fmt: skip
KINDS = (*_KINDS, "memory-injected")
DAMAGING = ("truncated", "flipped")
"""Kinds for commands that use weights."""
