"""Drives the module in a Slicer window through every task, and makes the pictures of the documentation on the way.

    Slicer --python-script Testing/window/pictures.py FOLDER [TASK ...]

Slicer must know the module (see the README) and its Python must be set up. Without names all scenes are played.
Each prints what was seen; the exit code is 1 if one of them failed. Nothing is left in Slicer's settings but the speed
of the computer and the folders of the training, nothing on disk but FOLDER and the model of the training.
"""

import shutil
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import qt
import slicer
import vtk

NODULE = (148, 147, 89)  # voxel (i, j, k) of the nodule in the sample CT
HEALTHY = (70, 110, 89)  # the same height in the other lung
LIVER = (80, 95, 22)
THRESHOLD = 3.5
MODEL = "picture-lungs-and-bone"


class Tour:
    """The window, the module and the sample CT.

    :param folder: where pictures and the training go.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        window = slicer.util.mainWindow()
        window.resize(1400, 900)
        window.findChild(qt.QWidget, "DataProbeCollapsibleWidget").collapsed = True
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self.ct = self.sample()
        slicer.util.selectModule("MedDiffFM")
        window.resizeDocks([window.findChild(qt.QDockWidget, "PanelDockWidget")], [450], qt.Qt.Horizontal)
        self.widget = slicer.modules.meddifffm.widgetRepresentation().self()
        self.ui = self.widget.ui
        turn(1)

    @staticmethod
    def load(name):
        """A sample as a user gets it, from the Sample Data module."""
        import SampleData

        sources = slicer.modules.sampleDataSources["MedDiff-FM"]
        source = next(one for one in sources if one.sampleName == name)
        return SampleData.SampleDataLogic().downloadFromSource(source)[0]

    def sample(self):
        """The CT, in a window for lungs."""
        ct = self.load("Thorax CT")
        ct.GetDisplayNode().SetAutoWindowLevel(False)
        ct.GetDisplayNode().SetWindowLevel(1400, -500)
        slicer.util.setSliceViewerLayers(background=ct, fit=True)
        return ct

    # What a user does

    def unfold(self, *names):
        """Show these sections of the panel."""
        for name in ("input", "task", "result", "train", "setup", "log"):
            getattr(self.ui, f"{name}CollapsibleButton").collapsed = name not in names
        turn(0.5)
        self.scroll(names[-1])

    def scroll(self, name):
        """Bring the beginning of a section to the top."""
        self.ui.panelScrollArea.verticalScrollBar().value = getattr(self.ui, f"{name}CollapsibleButton").y
        turn(0.3)

    def scrollTo(self, widget):
        """Bring something inside a section to the top."""
        area = self.ui.panelScrollArea
        area.verticalScrollBar().value = widget.mapTo(area.widget(), qt.QPoint(0, 0)).y()
        turn(0.3)

    def run(self, task):
        """Choose a task, press the button, wait; says how long the event loop stood still at most."""
        self.widget.taskPanel.choose(task)
        turn(0.5)
        estimate, gaps, begin = self.ui.estimateLabel.text, Gaps(), time.time()
        self.ui.runButton.click()
        wait(lambda: not self.widget.logic.running, 900)
        print(f"{task}: {time.time() - begin:.1f} s, {estimate!r}, longest standstill {gaps.longest():.3f} s")
        expect(self.ui.runStatusLabel.text.startswith("Done"), self.ui.runStatusLabel.text)

    def look(self, place, field=None):
        """All views go to a voxel (i, j, k); with a field of view in mm they are centered on it."""
        toRAS = vtk.vtkMatrix4x4()
        self.ct.GetIJKToRASMatrix(toRAS)
        location = toRAS.MultiplyPoint((*place, 1))[:3]
        slicer.util.resetSliceViews()
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *location)
        for name in ("Red", "Green", "Yellow") if field else ():
            node = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()
            width, height, depth = node.GetFieldOfView()
            node.SetFieldOfView(field, field * height / width, depth)
            node.JumpSliceByCentering(*location)
        turn(0.7)

    def paint(self, place, radius):
        """One touch of the sphere brush in the red view."""
        self.takeBrush(radius)
        self.stroke(place)
        self.widget.maskPanel.editor.setActiveEffect(None)
        turn(0.5)

    def takeBrush(self, radius):
        """The sphere brush of the Segment Editor, of so many mm."""
        editor = self.widget.maskPanel.editor
        editor.setActiveEffectByName("Paint")
        settings = {"BrushSphere": 1, "BrushDiameterIsRelative": 0, "BrushAbsoluteDiameter": 2 * radius}
        for name, value in settings.items():
            editor.activeEffect().setCommonParameter(name, value)

    def stroke(self, place):
        """Touch the red view with the brush; gives the time when it is lifted."""
        self.look(place, 150)
        view = slicer.app.layoutManager().sliceWidget("Red")
        toView = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(view.mrmlSliceNode().GetXYToRAS(), toView)
        toRAS = vtk.vtkMatrix4x4()
        self.ct.GetIJKToRASMatrix(toRAS)
        x, y = toView.MultiplyPoint(toRAS.MultiplyPoint((*place, 1)))[:2]
        brush = view.sliceView().interactor()
        brush.SetEventInformation(int(x), int(y))
        brush.MouseMoveEvent()
        brush.LeftButtonPressEvent()
        lifted = time.time()
        brush.LeftButtonReleaseEvent()
        return lifted

    def picture(self, name, widget=None):
        """The window, or a part of it, as PNG."""
        turn(0.7)
        slicer.util.forceRenderAllViews()
        target = widget or slicer.util.mainWindow()
        expect(target.grab().save(str(self.folder / f"{name}.png")), f"{name} is not saved")

    def discard(self):
        """Press Discard of a compared result."""
        self.ui.discardButton.click()
        turn(0.5)

    # Scenes

    def setup(self):
        """Set-up, checked."""
        self.unfold("setup")
        self.ui.checkPythonButton.click()
        wait(lambda: "torch" in self.ui.pythonCheckLabel.text, 120)
        expect("Works" in self.ui.pythonCheckLabel.text, self.ui.pythonCheckLabel.text)

    def sizes(self):
        """At both sizes of the window, with Data Probe open: the run strip in sight, and one width of the panel."""
        from MedDiffFMLib.tasks.registry import TASKS

        window = slicer.util.mainWindow()
        probe = window.findChild(qt.QWidget, "DataProbeCollapsibleWidget")
        probe.collapsed = False
        for size in ((1280, 720), (1400, 900)):
            window.resize(*size)
            widths = set()
            for task in TASKS:
                self.widget.taskPanel.choose(task)
                self.unfold("input", "task", "train", "setup", "log")
                strip = self.ui.runStripWidget
                bottom = strip.mapTo(window, qt.QPoint(0, strip.height)).y()
                expect(0 < bottom <= window.height, f"{task} at {size}: the strip ends at {bottom}")
                widths.add(window.findChild(qt.QWidget, "PanelDockWidget").width)
            expect(len(widths) == 1, f"the panel is {sorted(widths)} pixels wide at {size}")
            self.widget.taskPanel.choose("anomaly")
            self.unfold("input", "task")
            self.scroll("input")
            self.picture(f"panel-{size[0]}x{size[1]}")
        probe.collapsed = True

    def anomaly(self):
        """Heat map, layers, a click on the nodule, and the way back."""
        self.unfold("input", "task")
        self.run("anomaly")
        view = self.widget.anomalyView
        gaps = Gaps()
        view.ui.anomalyThresholdSlider.value = THRESHOLD
        wait(lambda: f"z {THRESHOLD}" in view.ui.findingsLabel.text, 60)
        print(f"threshold: longest standstill {gaps.longest():.3f} s")
        view.ui.allFindingsCheckBox.checked = True
        self.unfold("result")
        wait(lambda: view._body.shown, 120)
        self.look(NODULE)
        rows, toRAS = view.nodes.rows(), vtk.vtkMatrix4x4()
        self.ct.GetIJKToRASMatrix(toRAS)
        nodule = np.array(toRAS.MultiplyPoint((*NODULE, 1))[:3])
        away = [np.linalg.norm(nodule - [row["r_mm"], row["a_mm"], row["s_mm"]]) for row in rows]
        view.ui.findingsTableView.selectRow(int(np.argmin(away)))
        print(f"the nodule is finding {np.argmin(away) + 1} of {len(rows)}")
        turn(1)
        self.scroll("result")
        self.picture("slicer-anomaly")
        view.chooseLayer("difference")
        wait(lambda: view.nodes.node("difference") is not None, 30)
        self.picture("slicer-difference")
        view.ui.anomalyDiscardButton.click()

    def denoise(self):
        """Original and denoised side by side."""
        self.unfold("task", "result")
        self.run("denoise")
        self.ui.softWindowButton.click()
        self.look(LIVER, 110)
        self.ui.sideBySideButton.click()
        turn(1)
        self.scroll("result")
        self.picture("slicer-denoise")
        self.ui.sideBySideButton.click()
        self.discard()
        self.ui.lungWindowButton.click()

    def inpaint(self):
        """Paint the nodule, fill it, blink."""
        self.widget.taskPanel.choose("inpaint")
        self.unfold("task")
        self.paint(NODULE, 14)
        self.picture("slicer-paint")
        for _ in range(2):  # the second time the worker is warm
            self.run("inpaint")
        turn(1)  # until the panel has gone to the result by itself
        self.scrollTo(self.ui.maskWidget)  # mask and result together
        self.picture("slicer-fill")
        red = slicer.app.layoutManager().sliceWidget("Red").sliceView()
        self.picture("fill-after", red)
        self.widget.compareView.blink()
        self.picture("fill-before", red)
        self.discard()

    def generate_lesion(self):
        """Paint in healthy lung, insert a lesion."""
        self.widget.taskPanel.choose("generate_lesion")
        self.unfold("task")
        mask, nothing = self.widget.logic.getParameterNode().mask, np.zeros(slicer.util.array(self.ct.GetID()).shape)
        slicer.util.updateSegmentBinaryLabelmapFromArray(nothing.astype(np.uint8), mask, "region", self.ct)
        self.paint(HEALTHY, 10)
        self.run("generate_lesion")
        self.picture("slicer-insert")
        self.picture("insert", slicer.app.layoutManager().sliceWidget("Red").sliceView())
        self.discard()

    def super_resolve(self):
        """Thin slices out of thick ones."""
        self.unfold("task", "result")
        self.run("super_resolve")
        self.look(NODULE, 110)
        self.picture("slicer-sharpen")
        self.discard()

    def synthesize(self):
        """A CT of nobody, as a sentence asks for it."""
        self.widget.taskPanel.choose("synthesize")
        self.unfold("task", "result")
        self.write("prompt", "chest CT with contrast agent")
        self.widget.taskPanel.setValue("spacing", 3.0)
        self.run("synthesize")
        self.picture("slicer-synthesize")
        self.discard()
        self.look(NODULE)

    def write(self, name, text):
        """A text that the chosen task takes."""
        panel = self.widget.taskPanel
        panel._forms[panel.task].named._edits[name].text = text
        turn(0.2)

    def describe(self):
        """Sentences, and what one of them rests on."""
        self.unfold("task", "result")
        self.run("describe")
        view = self.widget.sentencesView
        table = view.ui.sentencesTableWidget
        chosen = next((n for n in range(table.rowCount) if "nodule" in table.item(n, 0).text()), 0)
        table.selectRow(chosen)
        table.scrollToItem(table.item(chosen, 0))
        self.picture("slicer-describe")
        view.discard()

    def radiograph(self):
        """X-rays from the front and from the side."""
        self.unfold("task", "result")
        self.widget.taskPanel.choose("radiograph")
        self.widget.taskPanel.setValue("views", "ap,lat")
        self.run("radiograph")
        self.picture("slicer-xray")
        self.widget.xrayView.accept()

    def reconstruct(self):
        """A CT that fits these X-rays."""
        front, side = map(slicer.util.getNode, ("thorax_lidc0001 X-ray", "thorax_lidc0001 X-ray lat"))
        self.widget.taskPanel.choose("reconstruct")
        self.ui.inputVolumeSelector.setCurrentNode(front)
        self.widget.taskPanel._forms["reconstruct"].named._selectors["second"].setCurrentNode(side)
        turn(0.5)
        self.run("reconstruct")
        slicer.util.resetSliceViews()
        self.picture("slicer-reconstruct")
        self.discard()
        self.ui.inputVolumeSelector.setCurrentNode(self.ct)
        self.look(NODULE)

    def translate(self):
        """A CT of the thigh from its MR."""
        mr = self.load("Thigh MR (T1)")
        self.ui.inputVolumeSelector.setCurrentNode(mr)
        self.unfold("task", "result")
        self.run("translate")
        self.ui.sideBySideButton.click()
        turn(1)
        self.picture("slicer-translate")
        self.ui.sideBySideButton.click()
        self.discard()
        self.ui.inputVolumeSelector.setCurrentNode(self.ct)

    def train(self):
        """Outlines become a dataset, a head is trained, paused and resumed."""
        from MedDiffFMLib.models.catalogue import list_models, remove_model

        if MODEL in [entry.name for entry in list_models()]:
            remove_model(MODEL)
        panel = self.widget.trainingPanel
        ui, data, runs = panel.ui, self.folder / "my-cases", self.folder / "my-training"
        for folder in (data, runs):
            shutil.rmtree(folder, ignore_errors=True)
        self.unfold("train")
        ui.datasetPathLineEdit.currentPath, ui.runPathLineEdit.currentPath = str(data), str(runs)
        ui.trainTaskComboBox.currentIndex = ui.trainTaskComboBox.findData("segmentation")
        outlines = self.outlined()
        ui.caseImageSelector.setCurrentNode(self.ct)
        ui.caseMaskSelector.setCurrentNode(outlines)
        turn(0.5)
        for button in (ui.addFromSceneButton, ui.checkButton):
            button.click()
            wait(lambda: not panel._cases.busy, 120)
        ui.modelNameLineEdit.text = MODEL
        panel.start(panel.request(steps=150, validate_every=30, checkpoint_every=30))
        wait(lambda: len(panel._chart.values("loss")) > 10, 300)
        ui.pauseTrainingButton.click()
        wait(lambda: ui.startTrainingButton.text == "Resume", 120)
        ui.startTrainingButton.click()
        wait(lambda: ui.trainingStatusLabel.text.startswith("Finished"), 400)
        for widget in (ui.casesWidget, ui.addWidget, ui.changeWidget, ui.casesTableWidget, ui.recipeWidget):
            widget.visible = False  # as while it goes on; folders of this computer are nobody's business
        self.picture("panel-training", self.ui.trainCollapsibleButton)
        panel.update()
        outlines.GetDisplayNode().SetVisibility(False)

    def outlined(self):
        """Lungs and dense voxels of the sample, by thresholds."""
        from scipy import ndimage

        voxels = slicer.util.arrayFromVolume(self.ct)
        body = np.stack([ndimage.binary_fill_holes(plane > -300) for plane in voxels])
        lungs = (voxels < -600) & ndimage.binary_erosion(body, iterations=4)
        masks = {"lungs": ndimage.binary_opening(lungs, iterations=2), "bone and contrast": voxels > 300}
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "outlines")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.ct)
        for (name, mask), color in zip(masks.items(), ((0.2, 0.5, 0.9), (0.95, 0.85, 0.6)), strict=True):
            segment = node.GetSegmentation().AddEmptySegment(name, name, color)
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment, self.ct)
        return node

    def segment(self):
        """The trained head outlines another CT: here the same one, moved a little and noisier."""
        voxels, toRAS = slicer.util.arrayFromVolume(self.ct), vtk.vtkMatrix4x4()
        self.ct.GetIJKToRASMatrix(toRAS)
        noise = np.random.default_rng(0).integers(-9, 9, voxels.shape).astype(voxels.dtype)
        matrix = slicer.util.arrayFromVTKMatrix(toRAS)
        other = slicer.util.addVolumeFromArray(np.roll(voxels, 3, 1) + noise, matrix, "follow-up")
        other.GetDisplayNode().CopyContent(self.ct.GetDisplayNode())
        self.ui.inputVolumeSelector.setCurrentNode(other)
        self.unfold("task", "result")
        self.run("segment")
        view = self.widget.segmentView
        view.ui.segments3DCheckBox.checked = True
        view.ui.uncertaintyCheckBox.checked = False
        self.look(NODULE)
        self.picture("slicer-segment")
        view.discard()
        self.ui.inputVolumeSelector.setCurrentNode(self.ct)


class Gaps:
    """Watches how long the event loop stands still."""

    def __init__(self):
        self._last, self._gaps = time.time(), [0.0]
        self._timer = qt.QTimer()
        self._timer.setInterval(5)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    def _tick(self):
        now = time.time()
        self._gaps.append(now - self._last)
        self._last = now

    def longest(self):
        """Seconds; the watch ends."""
        self._timer.stop()
        return max(self._gaps)


def turn(seconds):
    """Let Slicer work."""
    end = time.time() + seconds
    while time.time() < end:
        slicer.app.processEvents()
        time.sleep(0.01)


def wait(condition, seconds):
    """Let Slicer work until something is so."""
    end = time.time() + seconds
    while not condition():
        expect(time.time() < end, f"nothing happened in {seconds} s")
        turn(0.02)


def expect(condition, otherwise):
    """End the scene if something is not so."""
    if not condition:
        raise AssertionError(otherwise)


def main(folder, names=()):
    """Play the scenes; gives the exit code."""
    tour, failed = Tour(folder), 0
    scenes = ("sizes", "setup", "anomaly", "denoise", "inpaint", "generate_lesion", "super_resolve", "synthesize",
              "describe", "radiograph", "reconstruct", "translate", "train", "segment")  # fmt: skip
    for name in names or scenes:
        try:
            getattr(tour, name)()
            print(f"{name}: ok", flush=True)
        except Exception:
            traceback.print_exc()
            failed = 1
    return failed


if __name__ == "__main__":
    slicer.util.exit(main(sys.argv[1], sys.argv[2:]))
