"""The cases of a dataset folder as a table, and what changes them."""

import json
import logging
import tempfile
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from ..nodes.segmentationArrays import labelsFromSegmentation
from ..views.colorIcon import colorIcon
from ..worker.libraryCommand import LibraryCommand
from .segmentChoice import SegmentChoice

VERDICT_COLORS = {"ok": (0.2, 0.5, 0.9), "warning": (0.95, 0.65, 0.1), "error": (0.75, 0.1, 0.1)}
"""Squares before the names of cases; the last column and its tooltip say the same in words."""
COUNTING = "0123456789 _-"
HEADINGS = ("Case", "Patient", "Split", "Mask", "Check")


class TrainingCases:
    """The upper half of the Train section.

    :param ui: widgets of Training.ui.
    :param workerPython: which Python reads and checks the cases.
    :param onChanged: called without arguments when the cases, or whether something is going on, changed.
    """

    def __init__(self, ui, workerPython, onChanged):
        self.ui = ui
        self.workerPython = workerPython
        self.onChanged = onChanged
        self.task = "super-resolution"
        self.problem = ""  # why the cases cannot be trained on, as far as checked
        self._command = None
        self._findings = {}
        self._folder = None  # temporary files of the command that is going on
        table = ui.casesTableWidget
        table.setColumnCount(len(HEADINGS))
        table.setHorizontalHeaderLabels([_(text) for text in HEADINGS])
        table.verticalHeader().hide()
        # All columns share the table's width, whatever the names; tooltips have the whole texts.
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        ui.datasetPathLineEdit.connect("currentPathChanged(QString)", self._onDatasetChanged)
        self._segments = SegmentChoice(ui.caseSegmentsListWidget, ui.caseSegmentsLabel, self.update)
        ui.caseImageSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda *_node: self.update())
        ui.caseMaskSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onMaskChosen)
        ui.addFromSceneButton.connect("clicked(bool)", self._onAddFromScene)
        ui.addFolderButton.connect("clicked(bool)", self._onAddFolder)
        ui.removeCaseButton.connect("clicked(bool)", self._onRemove)
        ui.splitButton.connect("clicked(bool)", self._onSplit)
        ui.checkButton.connect("clicked(bool)", self.check)

    @property
    def dataset(self):
        """The dataset folder, empty until chosen."""
        return self.ui.datasetPathLineEdit.currentPath.strip()

    @property
    def busy(self):
        """Whether a command is changing or reading the cases."""
        return self._command is not None

    def stop(self):
        """End a command that is going on."""
        command, self._command = self._command, None
        if command:
            command.stop()
        self._dropFolder()

    def close(self):
        """The panel goes away."""
        self.stop()
        self._segments.remove()

    def count(self):
        """Number of cases in the table."""
        return self.ui.casesTableWidget.rowCount

    # Table

    def update(self):
        """Bring buttons to the present state."""
        ui, free = self.ui, not self.busy
        hasSegments = self._segments.checkedIDs() != []
        hasImage = ui.caseImageSelector.currentNode() is not None
        ui.addFromSceneButton.enabled = free and bool(self.dataset) and hasImage and hasSegments
        ui.addFolderButton.enabled = free and bool(self.dataset)
        for button in (ui.removeCaseButton, ui.splitButton, ui.checkButton):
            button.enabled = free and self.count() > 0

    def refresh(self):
        """Read the dataset folder again; quick, since only small files are read."""
        cases, damaged = self._scan()
        table = self.ui.casesTableWidget
        table.setRowCount(len(cases) + len(damaged))
        for row, case in enumerate(cases):
            names = {label.value: label.name for label in case.named}
            mask = ", ".join(names.get(n, str(n)) for n in case.labels) if "label" in case.files else "-"
            self._setRow(row, (case.name, case.patient, _(case.split), mask))
        for row, (name, reason) in enumerate(damaged.items(), start=len(cases)):
            self._setRow(row, (name, "", _("damaged"), reason))
        self.ui.datasetStatusLabel.visible = bool(self.ui.datasetStatusLabel.text)
        self.update()
        self.onChanged()

    def _scan(self):
        from MedDiffFMLib.datasets.dataset_folder import Dataset, is_dataset

        if not self.dataset or not is_dataset(Path(self.dataset)):
            return [], {}
        return Dataset(self.dataset).scan()

    def _setRow(self, row, texts):
        findings = self._findings.get(texts[0], [])
        check = _("ok") if self._findings and not findings else "; ".join(finding["cause"] for finding in findings)
        levels = {finding["level"] for finding in findings}
        verdict = "error" if "error" in levels else "warning" if levels else "ok" if self._findings else ""
        for column, text in enumerate((*texts, check)):
            item = qt.QTableWidgetItem(text)
            item.setToolTip("\n".join(finding["remedy"] for finding in findings) if column == 4 else text)
            if column == 0 and verdict:
                item.setIcon(colorIcon(VERDICT_COLORS[verdict]))
            self.ui.casesTableWidget.setItem(row, column, item)

    def selectedNames(self):
        """Names of the selected cases."""
        table = self.ui.casesTableWidget
        rows = sorted({index.row() for index in table.selectionModel().selectedRows()})
        return [table.item(row, 0).text() for row in rows]

    # Changes

    def _onDatasetChanged(self, path):
        self.stop()
        self._findings, self.problem = {}, ""
        self.ui.datasetStatusLabel.text = ""
        self.refresh()

    def _onMaskChosen(self, mask):
        self._segments.setNode(mask)
        self.update()

    def _onAddFromScene(self):
        from MedDiffFMLib.core.errors import MedDiffFMError

        image, mask = self.ui.caseImageSelector.currentNode(), self.ui.caseMaskSelector.currentNode()
        if not image:
            return
        try:
            with slicer.util.WaitCursor():
                self.add(image, mask, self.ui.casePatientLineEdit.text.strip(), self._segments.checkedIDs())
        except Exception as error:  # a slot of Qt, which swallows exceptions
            if not isinstance(error, MedDiffFMError):
                logging.exception("MedDiff-FM: the case could not be added")
            self._dropFolder()
            self._say(str(error))

    def add(self, image, mask=None, patient="", segmentIDs=None):
        """Copy a CT, and the mask on it, into the dataset.

        :param mask: segmentation or label map, or None.
        :param patient: the CT's name if empty.
        :param segmentIDs: segments that go into the case; all if None.
        :raises MedDiffFMError: a chosen segment is empty, or the files cannot be written.
        """
        self._folder = tempfile.mkdtemp(prefix="meddifffm-case-")
        files = [f"{self._folder}/{name}" for name in ("image.nrrd", "mask.nrrd", "labels.json")]
        arguments = ["dataset", "add", self.dataset, files[0], "--name", image.GetName()]
        sentences = [_("{name} is added.").format(name=image.GetName())]
        if mask and mask.IsA("vtkMRMLSegmentationNode"):
            labels, sentences[1:] = writeLabels(mask, image, files[1], segmentIDs)
            Path(files[2]).write_text(json.dumps({"labels": labels}), encoding="utf-8")
            arguments += ["--mask", files[1], "--labels", files[2]]
        elif mask:
            writeVolume(mask, files[1])
            arguments += ["--mask", files[1]]
        if patient:
            arguments += ["--patient", patient]
        else:
            sentences += self._alike(image.GetName())
        writeVolume(image, files[0])
        self._makeDataset()
        self._run(arguments, " ".join(sentences))

    def _alike(self, name):
        """A hint where another case is called almost the same: scans of one patient must stay together."""
        cases, _damaged = self._scan()
        stem = name.rstrip(COUNTING)
        near = [case.name for case in cases if len(stem) > 2 and case.name.rstrip(COUNTING) == stem]
        if not near or name in near:
            return []
        text = _("Is it a scan of the same patient as {other}? Then remove it and add it with that patient.")
        return [text.format(other=near[0])]

    def _makeDataset(self):
        from MedDiffFMLib.datasets.dataset_folder import Dataset

        Dataset.create(self.dataset)

    def _onAddFolder(self):
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of images and masks"))
        if folder:
            self.addFolder(folder)

    def addFolder(self, folder):
        """Add every pair of image and mask below a folder; what is there already is kept."""
        self._run(["dataset", "create", self.dataset, "--pairs", folder], _("The folder is added."))

    def _onRemove(self):
        names = self.selectedNames()
        if names:
            self._run(["dataset", "remove", self.dataset, *names], _("Removed."))

    def _onSplit(self):
        self._run(["dataset", "split", self.dataset], _("Patients for validation are chosen."))

    def check(self):
        """Read every case; what is wrong appears in the table."""
        self._folder = tempfile.mkdtemp(prefix="meddifffm-check-")
        report = f"{self._folder}/report.json"
        arguments = ["dataset", "check", self.dataset, "--task", self.task, "--report", report]
        self._run(arguments, "", lambda code: self._onChecked(Path(report), code))

    def _onChecked(self, path, code):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        self._findings = {case["name"]: [] for case in report["cases"]}
        general: list[dict[str, str]] = []
        for finding in report["findings"]:
            (self._findings.setdefault(finding["case"], []) if finding["case"] else general).append(finding)
        errors = [finding for finding in report["findings"] if finding["level"] == "error"]
        self.problem = f"{errors[0]['cause']} {errors[0]['remedy']}" if errors else ""
        self.ui.datasetStatusLabel.text = " ".join(
            [report["summary"] + ".", *(f"{finding['cause']} {finding['remedy']}" for finding in general)]
        )

    # Commands

    def _run(self, arguments, done, onEnd=None):
        """One command at a time; the window stays free."""
        problem = self.workerPython.localProblem()
        if self.busy or problem:
            self._say(problem or _("Wait until the present step is done."))
            self._dropFolder()
            return
        self._say(_("Working..."))
        self._command = LibraryCommand(
            self.workerPython, arguments, self._onLine, lambda code, text: self._onEnd(code, text, done, onEnd)
        )
        self.update()
        self.onChanged()

    def _say(self, text):
        self.ui.datasetStatusLabel.text = text
        self.ui.datasetStatusLabel.visible = True

    def _onLine(self, line):
        self.ui.datasetStatusLabel.text = line

    def _onEnd(self, code, text, done, onEnd):
        self._command = None
        if code == 0:
            self.ui.datasetStatusLabel.text = done
        else:
            self.ui.datasetStatusLabel.text = text.split("meddifffm: error: ")[-1]
        if onEnd:
            onEnd(code)
        self._dropFolder()
        self.refresh()

    def _dropFolder(self):
        import shutil

        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None


def writeVolume(node, path):
    """A volume node's voxels and geometry as NRRD, uncompressed; the node keeps its own file name.

    :raises OutputError: no space.
    """
    from MedDiffFMLib.core.errors import OutputError

    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(path)
    storage.SetUseCompression(False)
    if not storage.WriteData(node):
        raise OutputError(f"{node.GetName()} cannot be written to {path}.", "Free some space.")


def writeLabels(mask, image, path, segmentIDs=None):
    """Segments as labels 1, 2, ... on the CT's grid, as NRRD.

    :return: what the labels stand for, and sentences for the user; see labelsFromSegmentation.
    """
    import numpy as np

    labels, named, warnings = labelsFromSegmentation(mask, image, segmentIDs)
    node = slicer.vtkMRMLLabelMapVolumeNode()  # not in the scene
    node.CopyOrientation(image)
    slicer.util.updateVolumeFromArray(node, labels.astype(np.int16))
    writeVolume(node, path)
    return named, warnings
