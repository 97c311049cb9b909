"""Replays a radiologist's and a researcher's day in a Slicer window, and writes what was seen as a table.

    Slicer --python-script Testing/window/review.py FOLDER [WIDTHxHEIGHT ...] [SCENE ...]

FOLDER receives ``review.json`` and pictures. The JSON file has a row for each thing that went wrong in an earlier
window (``number``, ``promise``, ``kept``, ``seen``) and, under ``ways``, seconds and clicks from opening the module to
what a user wants. The exit code is 1 if a promise is not kept. Numbers are those of ``docs/explanation/panel.md``.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import qt
import slicer
from pictures import HEALTHY, NODULE, Gaps, Tour, expect, turn, wait

SIZES = ("1400x900", "1280x720")
SCENES = (
    "widths",
    "words",
    "keys",
    "findings",
    "filling",
    "live",
    "mistakes",
    "sideBySideZoomed",
    "others",
    "training",
)
STANDSTILL, LAYER, LIVE = 0.5, 0.3, 0.5
"""Most seconds for a hundred regions at another threshold, another layer, and a stroke that is filled live."""
LOW_THRESHOLD = 1.8  # at which the sample has some eighty regions; it and the next are not the default


class Review(Tour):
    """The tour with counted clicks, and a table of what was promised and seen.

    :param folder: where pictures and table go.
    :param size: (width, height) of the window.
    """

    def __init__(self, folder, size):
        Tour.__init__(self, folder)
        self.window = slicer.util.mainWindow()
        self.window.findChild(qt.QWidget, "DataProbeCollapsibleWidget").collapsed = False  # as users have it
        self.window.resize(*size)
        self.clicks, self.rows, self.ways = 0, [], {}
        self._begin = time.time()
        turn(1)

    # A user's hand

    def click(self, button):
        """One click on a button, which must be there to be clicked."""
        expect(button.visible and button.enabled, f"{button.objectName} cannot be clicked")
        self.clicks += 1
        button.click()
        turn(0.05)

    def opened(self):
        """The module is opened anew: clicks and seconds begin."""
        slicer.mrmlScene.Clear(0)
        self.ct = self.sample()
        slicer.util.selectModule("SampleData")
        turn(0.5)
        self.clicks, self._begin = 1, time.time()
        slicer.util.selectModule("MedDiffFM")
        turn(0.2)

    def task(self, name):
        """Its button."""
        self.click(self.widget.taskPanel._buttons[name])

    def finish(self, seconds=900):
        """Wait for the run; its status must be a success."""
        wait(lambda: not self.widget.logic.running, seconds)
        expect(self.ui.runStatusLabel.text.startswith("Done"), self.ui.runStatusLabel.text)

    def way(self, name):
        """Note seconds and clicks since the module was opened."""
        self.ways[name] = {"seconds": round(time.time() - self._begin, 1), "clicks": self.clicks}
        print(name, self.ways[name], flush=True)

    def promise(self, number, words, kept, seen=""):
        """Note whether something is as it should be.

        :param number: of the row in docs/explanation/panel.md.
        """
        self.rows.append({"number": number, "promise": words, "kept": bool(kept), "seen": str(seen)})
        print(f"{number:>3} {'kept  ' if kept else 'BROKEN'} {words}: {seen}", flush=True)

    def inSight(self, widget):
        """Whether a widget is inside the window and its scroll area."""
        top = widget.mapTo(self.window, qt.QPoint(0, 0)).y()
        area, inside = self.ui.panelScrollArea, True
        if area.isAncestorOf(widget):
            place = widget.mapTo(area, qt.QPoint(0, 0)).y()
            inside = place >= 0 and place + min(widget.height, 40) <= area.height
        return bool(widget.visible) and inside and top >= 0 and top + widget.height <= self.window.height

    # The day

    def findings(self):
        """The first finding looked at; the list; layers; decisions."""
        self.opened()
        self.promise(20, "the only volume is taken", self.ui.inputVolumeSelector.currentNode() is self.ct)
        self.task("anomaly")
        said = self.ui.estimateLabel.text
        self.promise(24, "device is said before the run", "rocessor" in said or "GPU" in said, said)
        self.click(self.ui.runButton)
        turn(0.3)
        strip = (self.ui.runButton, self.ui.runProgressBar, self.ui.runStatusLabel)
        self.promise(5, "button, progress and status are in sight in a run", all(map(self.inSight, strip)))
        self.picture("run")
        slicer.util.selectModule("SampleData")  # a warm run may be over by then
        turn(0.1)
        said, running = self.window.statusBar().currentMessage(), self.widget.logic.running
        self.promise(26, "the status bar tells of the run", "MedDiff-FM" in said or not running, said)
        slicer.util.selectModule("MedDiffFM")
        self.finish()
        self._priority()
        view = self.widget.anomalyView
        wait(
            lambda: view.nodes and view.nodes.table.GetTable().GetNumberOfRows() and "z" in view.ui.findingsLabel.text,
            60,
        )
        turn(0.5)
        self.promise(7, "the result is in sight when it is there", self.inSight(view.ui.findingsLabel))
        self.clicks += 1
        view.ui.findingsTableView.selectRow(0)
        turn(0.3)
        self.way("first finding looked at")
        self.picture("findings")
        count, shown = view.nodes.table.GetTable().GetNumberOfRows(), len(view.findings.shownRows())
        self.promise(3, "ten findings at first", shown <= 10, f"{shown} of {count}")
        table = view.ui.findingsTableView
        visible = sum(1 for row in range(count) if not table.isRowHidden(row) and table.rowViewportPosition(row) >= 0
                      and table.rowViewportPosition(row) + table.rowHeight(row) <= table.viewport().height)  # fmt: skip
        widest = sum(table.columnWidth(n) for n in range(6)) <= table.viewport().width
        self.promise(16, "rows and columns fit", visible >= min(shown, 5) and widest, f"{visible} rows in sight")
        self.promise(17, "slice and place in words", "of 133" in view.ui.findingLabel.text, view.ui.findingLabel.text)
        away = self._nodulesRow(view)
        self.promise(1, "the nodule is among the ten", away[0] < 10, f"finding {away[0] + 1}, {away[1]:.0f} mm away")
        begin = time.time()
        self.widget.resultPanel._ask("next")
        drawn = self.slicesDrawn() - begin
        self.promise(100, "the next finding at once", drawn <= LAYER, f"{drawn:.2f} s")
        turn(5)  # the 3D view follows
        self.layers(view)
        self.threshold(view)
        self.decide(view)

    def _priority(self):
        """The worker is no lower than where Slicer's starter put it."""
        if sys.platform == "linux":
            slicers, workers = (os.getpriority(os.PRIO_PROCESS, n) for n in (0, self.widget.logic._worker.processId))
            self.promise(25, "the worker has normal priority", workers <= 0, f"Slicer {slicers}, worker {workers}")

    @staticmethod
    def slicesDrawn():
        """Draw the slices as they are; gives the time. The 3D view comes later, and without a GPU takes seconds."""
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames():
            if manager.sliceWidget(name).visible:
                manager.sliceWidget(name).sliceView().forceRender()
        return time.time()

    def _nodulesRow(self, view):
        """(row, mm) of the finding nearest to the nodule."""
        import vtk

        toRAS = vtk.vtkMatrix4x4()
        self.ct.GetIJKToRASMatrix(toRAS)
        nodule = np.array(toRAS.MultiplyPoint((*NODULE, 1))[:3])
        away = [float(np.linalg.norm(nodule - [row["r_mm"], row["a_mm"], row["s_mm"]])) for row in view.nodes.rows()]
        return int(np.argmin(away)), min(away)

    def layers(self, view):
        """Each layer, the second time it is chosen: the difference is computed once."""
        slowest = {}
        for name in ("healthy", "difference", "uncertainty", "heat") * 2:
            button = view._buttons[name]
            if not button.enabled:
                continue
            begin = time.time()
            button.click()
            wait(lambda name=name: view.layer == name, 30)
            slowest[name] = round(self.slicesDrawn() - begin, 2)
            turn(1)
        self.promise(101, "a layer at once", max(slowest.values()) <= LAYER, slowest)
        legends = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        shown = [legend for legend in legends if legend.GetVisibility()]
        sizes = [legend.GetSize() for legend in shown]
        self.promise(14, "one small legend", len(shown) == 1 and sizes[0][1] < 0.4, sizes)

    def threshold(self, view):
        """A hundred regions, twice, inside body and bones."""
        view.ui.renderingCheckBox.checked = True
        wait(lambda: view._body.shown, 120)
        turn(1)
        stood = []
        for value in (LOW_THRESHOLD, LOW_THRESHOLD + 0.2, LOW_THRESHOLD):
            gaps = Gaps()
            view.ui.anomalyThresholdSlider.value = value
            wait(lambda value=value: f"z {value:.1f}" in view.ui.findingsLabel.text, 120)
            turn(0.3)
            stood.append(round(gaps.longest(), 2))
        regions = view.nodes.node("regions").GetSegmentation().GetNumberOfSegments()
        begin = time.time()
        slicer.app.layoutManager().threeDWidget(0).threeDView().forceRender()
        draw = time.time() - begin
        seen = f"{stood} s, {regions} regions, one draw of the 3D view {draw:.2f} s"
        self.promise(4, "no standstill but for one draw with in 3D on", max(stood) < STANDSTILL + draw, seen)
        view.ui.anomalyThresholdSlider.value = 3.0
        wait(lambda: "z 3.0" in view.ui.findingsLabel.text, 60)

    def decide(self, view):
        """Accepted is accepted; outdated results say so."""
        volumes = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
        self.click(view.ui.anomalyAcceptButton)
        slicer.util.selectModule("SampleData")
        slicer.util.selectModule("MedDiffFM")
        turn(0.5)
        if view.ui.anomalyDiscardButton.visible:
            view.ui.anomalyDiscardButton.click()
        turn(0.5)
        now = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
        self.promise(9, "what was accepted stays", now >= volumes, f"{volumes} volumes, then {now}")
        layer = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed").GetForegroundVolumeID()
        self.promise(5.5, "layers leave with their result", not layer, layer)

    def filling(self):
        """The first filling accepted; what is next works on it."""
        self.opened()
        self.task("inpaint")
        self.promise(21, "editor, strip in sight", self.inSight(self.ui.runButton))
        self.clicks += 2  # Paint, and a click with its ball
        self.paint(NODULE, 14)
        self.click(self.ui.runButton)
        self.finish()
        turn(0.3)
        self.picture("fill")
        self.promise(18, "figures are sentences", "HU" in self.ui.resultFactsLabel.text, self.ui.resultFactsLabel.text)
        self.promise(5, "Accept is in sight", self.inSight(self.ui.acceptButton))
        main = self.widget.resultPanel.run.main
        self.click(self.ui.acceptButton)
        self.way("first filling accepted")
        self.promise(2, "what was kept is the input", self.ui.inputVolumeSelector.currentNode() is main)
        self.task("generate_lesion")
        mask = self.widget.maskPanel.segmentation()
        self.promise(11, "Insert has a mask of its own", mask is None)
        self.paint(HEALTHY, 10)
        self.click(self.ui.runButton)
        self.finish()
        self.picture("insert")
        self._contrast()
        self.discard()

    def _contrast(self):
        """An inserted lesion must differ from what was there."""
        run = self.widget.resultPanel.run
        before, after = (slicer.util.arrayFromVolume(node).astype(float) for node in (run.inputNode, run.main))
        i, j, k = HEALTHY
        box = tuple(slice(n - 2, n + 3) for n in (k, j, i))
        change = (after[box] - before[box]).mean()
        self.promise(10, "an inserted lesion is seen", change > 100, f"{change:.0f} HU more")

    def live(self):
        """A stroke of a brush of 20 mm with *live*, warm."""
        self.opened()
        self.task("inpaint")
        self.ui.liveCheckBox.checked = True
        self.paint(NODULE, 10)
        wait(lambda: self.widget.resultPanel.run is not None, 120)
        for _ in range(2):  # the draft, and what replaces it
            turn(1)
            wait(lambda: not self.widget.logic.running, 60)
        turn(1)
        first, seconds, processor = self.widget.resultPanel.run, [], []
        self.takeBrush(10)
        for shift in (3, 6, 9):
            before = self.widget.resultPanel.run
            used = self._workerSeconds()
            begin = self.stroke((NODULE[0] - shift, NODULE[1], NODULE[2]))
            wait(lambda before=before: self.widget.resultPanel.run is not before, 60)
            seconds.append(round(self.slicesDrawn() - begin, 2))
            processor.append(round(self._workerSeconds() - used, 2))
            wait(lambda: not self.widget.logic.running, 60)
            turn(1)
            wait(lambda: not self.widget.logic.running, 60)
        self.widget.maskPanel.editor.setActiveEffect(None)
        self.promise(
            102,
            "a stroke is filled at once",
            max(seconds) <= LIVE,
            f"{seconds} s, of the worker's processor {processor} s",
        )
        runs = len(
            [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "filled" in node.GetName()]
        )
        self.promise(103, "one filling, not one a stroke", runs == 1 and first is not None, runs)
        for _ in range(4):
            self.widget.maskPanel.editor.undo()
            turn(3)
            wait(lambda: not self.widget.logic.running, 60)
        self.promise(12, "undo takes the filling back with the mask", self.widget.resultPanel.run is None)
        self.ui.liveCheckBox.checked = False

    def _workerSeconds(self):
        """Processor seconds of the worker so far, which other programs do not lengthen; 0 where there is no /proc."""
        status = Path(f"/proc/{self.widget.logic._worker.processId}/stat")
        ticks = status.read_text().split()[13:15] if status.exists() else (0, 0)
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") if any(ticks) else 0.0

    def mistakes(self):
        """MR, stored values, another CT, a CT that goes."""
        self.opened()
        noise = np.random.default_rng(0).integers(0, 900, (30, 64, 64)).astype(np.int16)
        mr = slicer.util.addVolumeFromArray(noise, None, "mr")
        width = self.window.findChild(qt.QWidget, "PanelDockWidget").width
        self.scroll("input")  # where a hand chooses
        self.ui.inputVolumeSelector.setCurrentNode(mr)
        turn(0.5)
        now = self.window.findChild(qt.QWidget, "PanelDockWidget").width
        text = self.ui.inputFactsLabel.text
        inSight = self.inSight(self.ui.inputFactsLabel)
        seen = f"{width} and {now} pixels: {text}"
        self.promise(6, "the reason is in sight and widens nothing", inSight and now == width, seen)
        self.picture("mr")
        shown = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed").GetBackgroundVolumeID()
        self.promise(35, "choosing a volume shows it", shown == mr.GetID())
        stored = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(self.ct) + 1024, None, "stored")
        stored.CopyOrientation(self.ct)
        self.ui.inputVolumeSelector.setCurrentNode(stored)
        turn(0.5)
        self.promise(6.5, "stored values can be shifted", self.ui.hounsfieldButton.visible)
        self.ui.inputVolumeSelector.setCurrentNode(self.ct)
        self.transformed()
        self.twoPatients()

    def transformed(self):
        """The mask goes with its CT."""
        self.task("inpaint")
        self.paint(NODULE, 10)
        move = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        self.ct.SetAndObserveTransformNodeID(move.GetID())
        turn(0.3)
        mask = self.widget.maskPanel.segmentation()
        self.promise(19, "the mask follows the transform", mask.GetTransformNodeID() == move.GetID())
        self.ct.SetAndObserveTransformNodeID(None)
        turn(0.3)

    def twoPatients(self):
        """A result of a CT that goes leaves the views."""
        self.click(self.ui.runButton)
        self.finish()
        main = self.widget.resultPanel.run.main
        segments = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        self.promise(13, "any segment can be taken as mask", self.ui.segmentMaskButton.visible, len(segments))
        slicer.mrmlScene.RemoveNode(self.ct)
        turn(0.5)
        layer = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed").GetForegroundVolumeID()
        self.promise(36, "no layer of a CT that is gone", layer != main.GetID(), layer)

    def sideBySideZoomed(self):
        """Both views of a zoomed place show the same."""
        self.opened()
        self.task("denoise")
        self.click(self.ui.runButton)
        self.finish()
        self.look(NODULE, 60)
        self.click(self.ui.sideBySideButton)
        turn(1)
        manager = slicer.app.layoutManager()
        fields = {name: manager.sliceWidget(name).mrmlSliceNode().GetFieldOfView()[0] / manager.sliceWidget(name).width
                  for name in manager.sliceViewNames() if manager.sliceWidget(name).visible}  # fmt: skip
        close = max(fields.values()) / min(fields.values()) < 1.05
        self.promise(8, "side by side keeps the zoom", close, {name: round(mm, 3) for name, mm in fields.items()})
        self.picture("side-by-side")
        self.click(self.ui.sideBySideButton)
        self.discard()

    def words(self):
        """What stands in the panel."""
        self.task("synthesize")
        said = self.ui.taskSentenceLabel.text
        self.promise(22, "the panel says whose body it is", "a published CT" in said and "not fit" in said, said)
        self.task("segment")
        labels = [
            label.text
            for label in slicer.util.findChildren(self.ui.parametersWidget, className="QLabel")
            if label.visible
        ]
        self.promise(23, "a trained segmentation, no head", not any("Head" in text for text in labels), labels)
        bare = [name for name, button in self.widget.taskPanel._buttons.items() if button.icon.isNull()]
        self.promise(104, "each task has an icon", not bare, bare)
        training = self.widget.trainingPanel.ui
        inMore = training.trainMoreCollapsibleButton.isAncestorOf(training.flipCheckBox)
        self.promise(105, "augmentation is under More", inMore)
        self.promise(31, "Segmentation is first", training.trainTaskComboBox.itemText(0) == "Segmentation")
        logic = slicer.util.getModuleLogic("MedDiffFM")
        try:
            logic.run("denois", self.ct)
            said = "no error"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        self.promise(32, "a mistyped task is answered with the list", "denoise" in said, said[:100])

    def widths(self):
        """One width of the panel, and the strip in sight, whatever is unfolded."""
        from MedDiffFMLib.tasks.registry import TASKS

        widths, lost = set(), []
        for task in TASKS:
            self.widget.taskPanel.choose(task)
            self.unfold("input", "task", "train", "setup", "log")
            widths.add(self.window.findChild(qt.QWidget, "PanelDockWidget").width)
            if not self.inSight(self.ui.runButton):
                lost.append(task)
        self.promise(21, "one width", len(widths) == 1, sorted(widths))
        self.promise(5, "the strip is in sight for every task", not lost, lost)
        self.picture("panel")
        self.unfold("input", "task")

    def training(self):
        """The first segmentation trained, stopped early, tried."""
        self.opened()
        training = self.widget.trainingPanel
        ui = training.ui
        self.unfold("train")
        self.clicks += 1
        ui.datasetPathLineEdit.currentPath = str(self.folder / "cases")
        ui.runPathLineEdit.currentPath = str(self.folder / "training")
        ui.trainTaskComboBox.currentIndex = ui.trainTaskComboBox.findData("segmentation")
        self.clicks += 2  # the two folders
        ui.caseImageSelector.setCurrentNode(self.ct)
        ui.caseMaskSelector.setCurrentNode(self.outlined())
        self.clicks += 2
        turn(0.5)
        for button in (ui.addFromSceneButton, ui.checkButton):
            self.click(button)
            wait(lambda: not training._cases.busy, 120)
        case = ui.casesTableWidget.item(0, 0)
        fits = sum(ui.casesTableWidget.columnWidth(n) for n in range(5)) <= ui.casesTableWidget.viewport().width
        self.promise(30, "the verdict is an icon in the first column", fits and not case.icon().isNull(), case.text())
        ui.modelNameLineEdit.text = f"review-{int(time.time())}"
        begin = time.time()
        self.click(ui.startTrainingButton)
        wait(lambda: len(training._chart.values("loss")) > 0, 600)
        first = time.time() - begin
        self.promise(29, "the first step within a minute", first < 60, f"{first:.0f} s")
        inSight = self.inSight(ui.trainingProgressBar) and self.inSight(ui.trainingStatusLabel)
        self.promise(29.5, "progress is in sight", inSight, ui.trainingStatusLabel.text)
        self.picture("training")
        self.click(ui.finishTrainingButton)
        wait(lambda: ui.trainingStatusLabel.text.startswith("Finished"), 600)
        self.promise(28, "Stop leaves a model", bool(training._state.model), ui.trainingStatusLabel.text)
        self.way("first segmentation trained")

    def others(self):
        """Seconds from the click to the result of tasks that the other scenes leave out."""
        self.opened()
        for name in ("describe", "radiograph"):
            self._timed(name)
        front, side = list(self.widget.resultPanel.run.volumes.values())[:2]
        self.widget.xrayView.accept()
        self.widget.taskPanel.choose("reconstruct")
        self.ui.inputVolumeSelector.setCurrentNode(front)
        self.widget.taskPanel._forms["reconstruct"].named._selectors["second"].setCurrentNode(side)
        self._timed("reconstruct")
        self.discard()
        self.ui.inputVolumeSelector.setCurrentNode(self.load("Thigh MR (T1)"))
        self._timed("translate")
        self.discard()
        self.widget.taskPanel.choose("synthesize")
        self.write("prompt", "chest CT with contrast agent")
        self.widget.taskPanel.setValue("spacing", 3.0)
        self._timed("synthesize")
        self.discard()

    def _timed(self, name):
        self.widget.taskPanel.choose(name)
        if name == "radiograph":
            self.widget.taskPanel.setValue("views", "ap,lat")
        turn(0.5)
        said, gaps, self.clicks, self._begin = self.ui.estimateLabel.text, Gaps(), 0, time.time()
        self.click(self.ui.runButton)
        self.finish()
        self.way(name)
        self.ways[name] |= {"said": said, "standstill": round(gaps.longest(), 2)}
        self.picture(name)

    def keys(self):
        """Slicer's own keys stay Slicer's."""
        taken = {str(key.key.toString()) for key in self.widget.resultPanel._shortcuts._shortcuts}
        self.promise(33, "B is Slicer's", "B" not in taken, sorted(taken))

    def play(self, scenes=SCENES):
        """Some of the day; a scene that breaks is a row of its own."""
        for scene in scenes:
            try:
                getattr(self, scene)()
            except Exception as problem:
                traceback.print_exc()
                self.promise(0, f"{scene} can be played", False, problem)
        table = {"rows": self.rows, "ways": self.ways, "cores": qt.QThread.idealThreadCount()}
        (self.folder / "review.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
        return all(row["kept"] for row in self.rows)


def main(folder, chosen=()):
    """Play the day, or the chosen scenes of it, at each size; gives the exit code."""
    scenes = [name for name in chosen if name in SCENES] or SCENES
    sizes = [name for name in chosen if name not in SCENES] or SIZES
    kept = [Review(Path(folder) / size, tuple(map(int, size.split("x")))).play(scenes) for size in sizes]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    slicer.util.exit(main(sys.argv[1], sys.argv[2:]))
