"""The tasks as the panel shows them; what a task does and which parameters it has stands in the library's table.

A task of the library that has no row here gets a button too, with its own title and the module's icon.
"""

from dataclasses import dataclass

from slicer.i18n import tr as _


@dataclass(frozen=True)
class TaskRow:
    """One button.

    :param name: task in the library's table.
    :param title: text of the button, one word.
    :param action: text of the Run button.
    :param icon: file name of the icon.
    :param paints: whether a mask is painted for it with the Segment Editor.
    :param control: for which task the catalogue must have a ControlNet; empty where none is needed.
    :param head: whether the catalogue must have a segmentation head.
    :param many: whether it can be applied to several CTs in one go.
    """

    name: str
    title: str
    action: str
    icon: str = "MedDiffFM.png"
    paints: bool = False
    control: str = ""
    head: bool = False
    many: bool = False

    @property
    def needsMask(self):
        """Whether it cannot run without a mask."""
        return _libraryTask(self.name).needs_mask

    @property
    def takesMask(self):
        """Whether a mask may be given."""
        task = _libraryTask(self.name)
        return task.takes_mask or task.needs_mask


def _libraryTask(name):
    from MedDiffFMLib.tasks.registry import TASKS

    return TASKS[name]


def taskRows():
    """The rows of all tasks that the library has, in the panel's order."""
    from MedDiffFMLib.tasks.registry import TASKS

    rows = [
        TaskRow("anomaly", _("Anomaly"), _("Find anomalies"), "anomaly.png"),
        TaskRow("denoise", _("Denoise"), _("Denoise"), "denoise.png"),
        TaskRow("inpaint", _("Fill"), _("Fill with healthy tissue"), "fill.png", paints=True),
        TaskRow("generate_lesion", _("Insert"), _("Insert lesion"), "insert.png", paints=True, control="lesion"),
        TaskRow("super_resolve", _("Sharpen"), _("Sharpen"), "sharpen.png"),
        TaskRow("synthesize", _("Synthesize"), _("Synthesize a CT"), "synthesize.png"),
        TaskRow("segment", _("Segment"), _("Segment"), "segment.png", head=True, many=True),
    ]
    known = {row.name for row in rows}
    others = [TaskRow(name, task.title, task.title) for name, task in TASKS.items() if name not in known]
    return [row for row in rows if row.name in TASKS] + others
