"""How long a run will take, from the runs before it on this computer."""

import json
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .volumeNodes import volumeFromNode

SETTING = "MedDiffFM/SecondsPerUnit"


class RunSpeed:
    """Seconds that a unit of work took in the last run of the same kind, kept in the application settings.

    A unit is one network evaluation of a million voxels, or of the neighbourhood of a mask, so that parameters and size
    of the input count.
    """

    def remember(self, run):
        """Learn from a FinishedRun."""
        units = workUnits(run.task, run.inputNode, run.settings)
        seconds = run.report.get("seconds")
        if units and seconds:
            known = self._known()
            known[_key(run.task, run.settings)] = seconds / units
            qt.QSettings().setValue(SETTING, json.dumps(known))

    def seconds(self, task, inputNode, settings):
        """Estimated seconds, None where no such run was measured yet."""
        perUnit = self._known().get(_key(task, settings))
        units = workUnits(task, inputNode, settings)
        return perUnit * units if perUnit and units else None

    def sentence(self, task, inputNode, settings):
        """The estimate in words."""
        seconds = self.seconds(task, inputNode, settings)
        if seconds is None:
            return _("How long it takes is known after the first run on this computer.")
        return _("About {time}.").format(time=duration(seconds))

    def _known(self):
        try:
            known = json.loads(slicer.util.settingsValue(SETTING, "{}", converter=str))
        except ValueError:
            return {}
        return known if isinstance(known, dict) else {}


def duration(seconds):
    """12 s, or 3 min."""
    return f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _key(task, settings):
    return f"{task}/{settings.model}/{settings.device}"


def workUnits(task, inputNode, settings):
    """Network evaluations times millions of voxels; 0 where it cannot be told."""
    from MedDiffFMLib.tasks.parameters import describe
    from MedDiffFMLib.tasks.registry import TASKS

    values: dict[str, Any] = {field.name: field.default for field, _info in describe(TASKS[task].parameter_class())}
    values.update(settings.parameters)
    if task == "synthesize":
        return _synthesisUnits(values)
    if inputNode is None or inputNode.GetImageData() is None:
        return 0
    volume = volumeFromNode(inputNode)
    if task == "anomaly":  # its working voxels have a fixed size
        return volume.voxels.size * volume.voxel_volume / 27e6
    if TASKS[task].needs_mask or TASKS[task].synthetic:  # the neighbourhood of the mask alone
        return max(values["steps"], 1) * values.get("samples", 1)
    return max(values.get("steps", 1), 1) * volume.voxels.size / 1e6


def _synthesisUnits(values):
    """The finest grid decides."""
    size, spacing = values["size"] or (300.0, 300.0, 300.0), values["spacing"] or 1.5
    passes = values["native_steps"] * (2 if values["guidance"] not in (0, 1) else 1)
    return passes * size[0] * size[1] * size[2] / spacing**3 / 1e6
