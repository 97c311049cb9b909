#!/usr/bin/env python3
"""One command from a fresh clone to a result. Needs Python 3.10 or newer and nothing else.

    python3 run.py demo           denoise, search and repair a real CT; pictures land in demo_output/
    python3 run.py test           style, types and every test, on all cores (4 at most)
    python3 run.py test --quick   style and most of the tests, in under a minute
    python3 run.py docs           build the pages of docs/ into site/; `docs serve` shows them while you write
    python3 run.py --help         this text

The first run makes .venv beside this file and installs what is needed there; later runs start at once. Nothing
outside this folder is changed. More words are handed on: `run.py test -k geometry`, `run.py demo --help`. A tool of
.venv alone: `run.py tool ruff check`.

Options, before the command
    --system-torch          use the PyTorch of the Python that runs this file; downloads least

Environment
    MEDDIFFFM_TORCH         what pip shall install as PyTorch: a requirement ("torch==2.9.1"), the path of a wheel, or
                            several words as for `pip install`. Without it: the tested version, as CPU build where
                            there is no NVIDIA GPU and pip knows a place that offers one, else as the default build.
                            On Linux the default build brings CUDA libraries of several GB with it; it runs without
                            a GPU too. PyTorch's installation page tells how to point pip at the CPU builds.
"""

import contextlib
import ctypes
import glob
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

TORCH = "torch==2.13.0"
OLDEST_PYTHON = (3, 10)
ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "Scripts", "python.exe") if os.name == "nt" else os.path.join(VENV, "bin", "python")
GIGABYTE = 1e9
EXTRAS = {"demo": "", "test": "[test]", "docs": "[docs]"}
"""Command -> what of pyproject.toml it needs besides the library."""
QUICK = ["-m", "not slow"]
"""For pytest: without the tests that are marked slow."""
SIDE_BY_SIDE = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"]
"""For pytest: a file of tests to each core in turn, each in a process that takes about 1 GB. In the order of folders,
in which whole programs come first: files with the most tests first would leave long ones to one core at the end."""

# What PySide6 and VTK load at run time to draw without a screen, with the Debian package that brings it.
DRAWING_LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libEGL_mesa.so.0": "libegl-mesa0",
    "libGL.so.1": "libgl1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libfontconfig.so.1": "libfontconfig1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libglib-2.0.so.0": "libglib2.0-0",
}

# Programs that tests of DICOM ask for a second opinion, with the Debian package that brings each.
DICOM_PROGRAMS = {"dciodvfy": "dicom3tools", "dcmdump": "dcmtk"}
ORTHANC = ["orthanc", "orthanc-dicomweb"]
SERVERS = ["openssh-server"]
"""A server: installed where no service can start by that, as in containers; elsewhere only named."""

NO_NETWORK = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ProxyError", "ReadTimeout", "Network is")
NO_ROOM = ("No space left on device", "Disk quota exceeded", "not enough space on the disk")


class Problem(Exception):
    """Something the user can mend: one line that says what and how."""


def say(text):
    print("run.py: " + text, flush=True)


def main(words):
    """Exit code for the command line ``words``."""
    system_torch = "--system-torch" in words[:1]
    command, *rest = words[1:] if system_torch else (words or ["--help"])
    if command in ("-h", "--help", "help"):
        print(__doc__.strip())
        return 0
    commands = {"demo": demo, "test": test, "docs": docs, "tool": tool}
    if command not in commands:
        known = ", ".join(commands) + " and --help"
        print("run.py: unknown command '" + command + "'; there are " + known + ".", file=sys.stderr)
        return 2
    try:
        check_python()
        if command in EXTRAS:
            prepare(command, system_torch)
        return commands[command](rest)
    except Problem as problem:
        print("run.py: " + str(problem), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrun.py: stopped; the next run goes on from here.", file=sys.stderr)
        return 130


def demo(words):
    """Walk through the tasks on the bundled CT."""
    return subprocess.call([PYTHON, "-m", "MedDiffFMLib.demo", *words], cwd=ROOT)


def test(words):
    """Style, format, tests, types; all of them run, and the first failure gives the exit code.

    Types are checked beside the tests, in what these leave of the processor. Words for pytest choose a few tests as a
    rule, which one process begins sooner.
    """
    check_system_packages()
    quick = "--quick" in words
    words = [word for word in words if word != "--quick"]
    options = [*(QUICK if quick else []), *([] if words and not quick else SIDE_BY_SIDE)]
    steps = {
        "style": ["ruff", "check", "."],
        "format": ["ruff", "format", "--check", "."],
        "tests": ["pytest", *options, *words],
    }
    codes = {}
    with contextlib.ExitStack() as stack:
        types = None if quick else stack.enter_context(in_the_background(["mypy"]))
        for name, command in steps.items():
            say(name + ": " + " ".join(command))
            codes[name] = subprocess.call([PYTHON, "-m", *command], cwd=ROOT, env=keeping_bytecode())
        if types:
            say("types: mypy")
            codes["types"] = types()
    say(", ".join(name + (" passed" if code == 0 else " FAILED") for name, code in codes.items()))
    return next((code for code in codes.values() if code), 0)


@contextlib.contextmanager
def in_the_background(command):
    """Run a Python tool of .venv with what processor time others leave; gives a function that waits, prints what the
    tool wrote, and returns its exit code. Who leaves earlier ends it."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        patient = (lambda: os.nice(19)) if os.name == "posix" else None
        process = subprocess.Popen([PYTHON, "-m", *command], cwd=ROOT, stdout=output, stderr=output, preexec_fn=patient)

        def finish():
            code = process.wait()
            output.seek(0)
            sys.stdout.write(output.read())
            return code

        try:
            yield finish
        finally:
            process.kill()
            process.wait()


def keeping_bytecode():
    """Environment in which Python keeps what it compiled: some containers forbid that, and the tests start a hundred
    processes, each of which would compile the library again, for a second."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def docs(words):
    """The pages as a site; a warning, such as a broken link, is an error."""
    return tool(["mkdocs", *(words or ["build", "--strict"])])


def tool(words):
    """A Python tool of .venv, as it is."""
    if not words or not os.path.exists(PYTHON):
        raise Problem("name a tool, after `python3 run.py test --quick` has made .venv: run.py tool mypy")
    return subprocess.call([PYTHON, "-m", *words], cwd=ROOT)


# ---------------------------------------------------------------------------------------------------------- environment


def check_python():
    """Refuse a Python that is too old or cannot make virtual environments."""
    if sys.version_info < OLDEST_PYTHON:
        raise Problem(
            "this is Python {}.{}, but {}.{} or newer is needed; run it as `python3.11 run.py ...` or the like.".format(
                *sys.version_info[:2], *OLDEST_PYTHON
            )
        )
    if not os.path.exists(PYTHON) and not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise Problem(
            "this Python cannot make virtual environments; on Debian and Ubuntu: "
            "sudo apt-get install python{}.{}-venv".format(*sys.version_info[:2])
        )
    if (platform.system(), platform.machine()) == ("Darwin", "x86_64"):
        raise Problem("PyTorch has no current version for Macs with Intel processors; use another computer.")


def prepare(command, system_torch):
    """Bring .venv to what ``command`` needs; a stamp inside it tells that this was finished before."""
    wanted = fingerprint(system_torch)
    extra = EXTRAS[command]
    stamp = os.path.join(VENV, "stamp-" + command)
    # An environment that serves the tests or the pages serves the demo too.
    stamps = [os.path.join(VENV, "stamp-" + name) for name in (EXTRAS if command == "demo" else [command])]
    if os.path.exists(PYTHON) and any(read(path) == wanted for path in stamps):
        return
    started = time.monotonic()
    check_room(command)
    make_environment(system_torch)
    install_torch(system_torch)
    say("installing MedDiff-FM and what it needs" + (" for " + extra.strip("[]") if extra else ""))
    pip(["--editable", ROOT + extra])
    with open(stamp + ".new", "w") as file:
        file.write(wanted)
    os.replace(stamp + ".new", stamp)
    say(f"ready after {time.monotonic() - started:.0f} s")


def fingerprint(system_torch):
    """Changes whenever .venv has to be brought up to date."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        project = hashlib.sha256(file.read()).hexdigest()
    torch = os.environ.get("MEDDIFFFM_TORCH", TORCH)
    return json.dumps([project, sys.version, torch, system_torch])


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def check_room(command):
    """Refuse to begin an installation that cannot fit on the disk."""
    if any(os.path.exists(os.path.join(VENV, "stamp-" + name)) for name in EXTRAS):
        return
    needed = (9 if has_nvidia_gpu() else 3) + (2 if command == "test" else 0)
    free = shutil.disk_usage(ROOT).free / GIGABYTE
    if free < needed:
        raise Problem(f"{free:.1f} GB are free here, but about {needed} GB are needed; make room and run again.")


def make_environment(system_torch):
    """A virtual environment in .venv; one that is broken, half made or of the other kind is made anew."""
    settings = read(os.path.join(VENV, "pyvenv.cfg")) or ""
    shares = "include-system-site-packages = true" in settings
    if shares == system_torch and works("import pip") and works(f"import sys; assert sys.version == {sys.version!r}"):
        return
    say("making .venv with Python " + platform.python_version())
    options = ["--clear"] + (["--system-site-packages"] if system_torch else [])
    if subprocess.call([sys.executable, "-m", "venv", *options, VENV]) != 0:
        raise Problem("the virtual environment cannot be made in " + VENV + "; the lines above say why.")


def works(code):
    """Whether a line of Python runs in .venv."""
    try:
        return subprocess.call([PYTHON, "-c", code], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def install_torch(system_torch):
    """PyTorch, as small as this machine allows."""
    chosen = os.environ.get("MEDDIFFFM_TORCH")
    if system_torch:
        if not works("import torch"):
            raise Problem("--system-torch: " + sys.executable + " has no PyTorch; run without the option.")
        say("using the PyTorch of " + sys.executable)
    elif chosen:
        say("installing PyTorch as MEDDIFFFM_TORCH says: " + chosen)
        pip(shlex.split(chosen, posix=os.name != "nt"))
    elif works("import torch; assert torch.__version__.split('+')[0] == '" + TORCH.split("==")[1] + "'"):
        say("PyTorch is there already")
    elif has_nvidia_gpu():
        say("installing PyTorch for the NVIDIA GPU, about 3 GB")
        pip([TORCH])
        if os.name == "nt":
            say("on Windows pip's default PyTorch runs on the CPU; for CUDA see MEDDIFFFM_TORCH in run.py --help")
    elif platform.system() == "Linux":
        say("no NVIDIA GPU here; looking for PyTorch without CUDA, about 200 MB")
        if not pip([TORCH + "+cpu"], may_lack=True):
            say("pip knows no such build; taking the default one, about 3 GB with its CUDA libraries (see --help)")
            pip([TORCH])
    else:
        say("installing PyTorch, about 200 MB")
        pip([TORCH])


def has_nvidia_gpu():
    """Whether a driver answers."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return False
    answer = subprocess.run([tool, "--list-gpus"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return answer.returncode == 0 and b"GPU" in answer.stdout


def pip(words, may_lack=False):
    """``pip install``; its errors become one line. With ``may_lack`` a missing package gives False."""
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *words]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace")
    complaints = []
    for line in process.stderr or ():
        complaints.append(line)
        if not may_lack:
            sys.stderr.write(line)
    if process.wait() == 0:
        return True
    text = "".join(complaints)
    if any(sign in text for sign in NO_ROOM):
        raise Problem("the disk is full; make room and run the same command again.")
    if any(sign in text for sign in NO_NETWORK):
        raise Problem("pip cannot reach its packages; check network and proxy, then run the same command again.")
    if may_lack and "No matching distribution" in text:
        return False
    last = next((line.strip() for line in reversed(complaints) if line.startswith("ERROR")), "see the lines above")
    raise Problem("pip install " + " ".join(words) + " failed: " + last)


# ----------------------------------------------------------------------------------------------------- system libraries


def check_system_packages():
    """Tests need libraries and programs which pip cannot install: install them as root on Debian, else name them."""
    missing = missing_packages()
    if not missing:
        return
    apt = shutil.which("apt-get")
    servers = [*ORTHANC, *SERVERS]  # which a system that starts services would start for good
    wanted = [package for package in missing if package not in servers or not os.path.isdir("/run/systemd/system")]
    if apt and os.geteuid() == 0 and wanted:
        say("installing what the tests draw with and compare with: " + " ".join(wanted))
        subprocess.call([apt, "update", "-qq"])
        subprocess.call([apt, "install", "-y", "-qq", "--no-install-recommends", *wanted])
        missing = missing_packages()
    if missing:
        say("some tests will be skipped; on Debian and Ubuntu: sudo apt-get install " + " ".join(missing))


def missing_packages():
    """Debian names of what is not there; empty on other systems than Linux."""
    return [*missing_drawing_packages(), *missing_servers()]


def missing_servers():
    """Debian names of programs that check DICOM objects, of an archive to fetch from, and of OpenSSH's server."""
    if platform.system() != "Linux":
        return []
    places = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    missing = [package for program, package in DICOM_PROGRAMS.items() if not shutil.which(program)]
    missing += [] if shutil.which("Orthanc", path=places) else ORTHANC
    return missing + [package for package in SERVERS if not shutil.which("sshd", path=places)]


def missing_drawing_packages():
    """Debian names of what cannot be loaded; empty on other systems than Linux."""
    if platform.system() != "Linux":
        return []
    missing = [package for library, package in DRAWING_LIBRARIES.items() if not loads(library)]
    drivers = ("/usr/lib*/dri/*swrast*", "/usr/lib/*/dri/*swrast*", "/usr/lib*/libgallium*", "/usr/lib/*/libgallium*")
    if not any(glob.glob(pattern) for pattern in drivers):
        missing.append("libgl1-mesa-dri")
    return missing


def loads(library):
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
