"""Where a run will be computed, in words, before it starts; known from the worker's last start."""

import json
import os

import qt
import slicer
from slicer.i18n import tr as _

SETTING = "MedDiffFM/Devices"


def deviceText(device):
    """What a worker says of a device, for the user; its memory where it has its own."""
    memory, free = device.get("memory_bytes"), device.get("free_bytes")
    if not memory:
        return device["title"]
    if free is None:
        return _("{title} ({total:.0f} GB)").format(title=device["title"], total=memory / 1e9)
    text = _("{title} ({free:.1f} of {total:.0f} GB free)")
    return text.format(title=device["title"], free=free / 1e9, total=memory / 1e9)


def rememberDevices(executable, devices):
    """Keep what a worker of this Python has found."""
    known = _known()
    known[executable] = {"devices": devices, "precision": known.get(executable, {}).get("precision", {})}
    qt.QSettings().setValue(SETTING, json.dumps(known))


def rememberPrecision(executable, device, precision):
    """Keep in which precision a run was computed.

    :param device: as in a report, "cpu" or "cuda:0".
    """
    known = _known()
    if device and precision and executable in known:
        known[executable]["precision"][device] = precision
        qt.QSettings().setValue(SETTING, json.dumps(known))


def takesAccelerator(executable, choice):
    """Whether a run will not be computed by the processor, as far as that is known.

    :param choice: "auto", "cpu" or a kind of accelerator.
    """
    return choice not in ("auto", "cpu") or _accelerator(_known().get(executable, {}), choice) is not None


def _accelerator(about, choice):
    """The device besides the processor that a choice means; None where there is none."""
    wanted = "" if choice == "auto" else choice
    others = [device for device in about.get("devices", ()) if device["name"] != "cpu"]
    return next((device for device in others if device["name"].startswith(wanted)), None)


def plannedDevice(executable, choice):
    """The device that a run will take.

    :param choice: "auto", "cpu" or a kind of accelerator.
    """
    about = _known().get(executable, {})
    gpu = _accelerator(about, choice)
    if gpu is not None:
        return _withPrecision(deviceText(gpu), about, gpu["name"])
    if choice == "auto" and not about:
        return _("GPU if there is one, else the processor")
    if choice not in ("auto", "cpu"):
        return choice.upper()
    return _withPrecision(_("processor, {count} cores").format(count=os.cpu_count() or 1), about, "cpu")


def _withPrecision(text, about, name):
    precision = about.get("precision", {}).get(name)
    return f"{text}, {precision}" if precision else text


def _known():
    """Executable of a Python -> its devices, and the precision of the last run on each."""
    try:
        known = json.loads(slicer.util.settingsValue(SETTING, "{}", converter=str))
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}
