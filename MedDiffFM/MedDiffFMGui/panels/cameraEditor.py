"""The camera of the 3D view as a parameter, with a small X-ray that follows it."""

from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from ..views.cameras import cameraNode, cameraOfView
from ..views.xrayPreview import XrayPreview
from ..worker.eventLoopTasks import EventLoopTask, importing

FRAME_MS, REST_MS = 15, 250
"""A picture is drawn so long after the view has moved; the parameter takes the camera once the view rests."""
MODULES = ("scipy.ndimage", "scipy.spatial")
NO_RAYS = 0.7
"""Attenuation of three centimeters of soft tissue: what is less is air or skin, and decides about no window."""


class CameraEditor:
    """A button that lets a parameter follow the 3D view, and forgets the camera when pressed again.

    :param onChanged: called without arguments when the user changed the value.
    """

    def __init__(self, onChanged):
        self._onChanged = onChanged
        self._quiet = False
        self._camera: Any = None
        self._scan: Any = None
        self._preview: Any = None
        self._observations: list = []
        self._loopTask = EventLoopTask()
        self.widget = qt.QWidget()
        rows = qt.QVBoxLayout(self.widget)
        rows.setContentsMargins(0, 0, 0, 0)
        self.button = qt.QPushButton(_("From this 3-D view"))
        self.button.checkable = True
        self.picture = qt.QLabel()
        self.picture.visible = False
        rows.addWidget(self.button)
        rows.addWidget(self.picture)
        self._frame = _timer(FRAME_MS, self.draw)
        self._rest = _timer(REST_MS, self._take)
        self.button.connect("toggled(bool)", self._onToggled)

    def setToolTip(self, text):
        self.widget.toolTip = self.button.toolTip = text
        self.picture.toolTip = _(
            "What the X-ray will show, coarsely. Turn the 3D view, or move the scan by a transform."
        )

    def value(self):
        return self._camera

    def setValue(self, value):
        """Show ``value``; does not call ``onChanged``."""
        self._camera = value
        self._quiet = True
        try:
            self.button.checked = value is not None
        finally:
            self._quiet = False
        self._follow()

    def setScan(self, node):
        """The volume that is X-rayed; None for none."""
        if node is not self._scan:
            self._scan, self._preview = node, None
            self._follow()

    # The view is followed

    def _onToggled(self, checked):
        if not self._quiet:
            self._camera = self._seen() if checked else None
            self._follow()
            self._onChanged()

    def _seen(self):
        """The camera of the 3D view in the scan's own coordinates."""
        camera = cameraOfView()
        if camera is None or self._scan is None or self._scan.GetParentTransformNode() is None:
            return camera
        position, focalPoint, viewUp = camera[:3], camera[3:6], camera[6:]
        above = [value + step for value, step in zip(position, viewUp, strict=True)]
        points = []
        for point in (position, focalPoint, above):
            own = [0.0, 0.0, 0.0]
            self._scan.TransformPointFromWorld(point, own)
            points.append(own)
        up = [after - before for after, before in zip(points[2], points[0], strict=True)]
        return [round(value, 3) for value in (*points[0], *points[1], *up)]

    def _follow(self):
        """Watch camera and transform while there is a camera to follow, and stop where there is none."""
        for node, tag in self._observations:
            node.RemoveObserver(tag)
        self._observations = []
        self._frame.stop()
        self._rest.stop()
        self._loopTask.stop()
        if self._camera is None or self._scan is None:
            self.picture.visible = False
            return
        camera = cameraNode()
        events = [(self._scan, slicer.vtkMRMLTransformableNode.TransformModifiedEvent)]
        events += [(camera, vtk.vtkCommand.ModifiedEvent)] if camera else []
        self._observations = [(node, node.AddObserver(event, self._onMoved)) for node, event in events]
        if self._preview is None:
            self._loopTask.start(self._preparing(), lambda preview: self.draw(), lambda error: None, atOnce=False)
        else:
            self.draw()

    def _preparing(self):
        """The preview, as a generator of steps; a scan of air alone has none, and the run tells why."""
        yield from importing(*MODULES)
        if self._scan.GetImageData() is not None:
            self._preview = XrayPreview(self._scan)

    def _onMoved(self, *_arguments):
        if not self._frame.active:
            self._frame.start()
        self._rest.start()

    def _take(self):
        """The view rests: the parameter becomes what is seen."""
        camera = self._seen()
        if self._camera is not None and camera is not None and camera != self._camera:
            self._camera = camera
            self._onChanged()

    def draw(self):
        """Draw what the X-ray would show from where the view is now; from the kept camera if it has not moved."""
        from MedDiffFMLib.core.errors import InputError
        from MedDiffFMLib.multimodal.views import Setup, from_camera

        if self._preview is None or self._camera is None:
            return
        camera = self._seen() if self._rest.active else self._camera
        try:
            pixels, _beam = self._preview.picture(from_camera(camera[:3], camera[3:6], camera[6:]), Setup())
        except InputError as error:  # inside of the body
            self.picture.text = str(error)
        else:
            self.picture.setPixmap(_pixmap(pixels))
        self.picture.visible = True


def _timer(milliseconds, slot):
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.connect("timeout()", slot)
    return timer


def _pixmap(pixels):
    """Gray picture of attenuations (j, i), black where nothing is."""
    import numpy as np

    body = pixels[pixels > NO_RAYS]
    low, high = np.percentile(body, (0.5, 99.8)) if body.size else (0.0, 1.0)
    gray = np.clip((pixels - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    picture = qt.QPixmap()
    picture.loadFromData(b"P5 %d %d 255\n" % gray.shape[::-1] + gray.tobytes())  # PGM, which every Qt reads
    return picture.scaled(2 * picture.width(), 2 * picture.height(), qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation)
