"""A small X-ray of a scan in hundredths of a second, in Slicer's own process: what the beam would show from here.

All rays at once are one resampling of the scan by VTK. A point of a ray from the source S to the pixel P is
S + t (P - S); with s = 1 / t that is (s S + P - S) / s, linear in the pixel's indices and in s, so that a matrix of
homogeneous coordinates takes pixel and plane to voxel. The sum over planes is the line integral. It knows water alone,
and voxels of 2 to 4 mm: enough to turn the view by, the run computes the picture.
"""

import vtk

from ..nodes.volumeNodes import imageData, volumeFromNode

PIXELS = 128
VOXEL_MM = STEP_MM = 4.0
MM_PER_CM = 10.0


class XrayPreview:
    """The body of a scan, made coarse and ready for any number of pictures.

    :param node: volume with a CT; its transform is not looked at, views are in the scan's own coordinates.
    :raises InputError: the scan holds air alone.
    """

    def __init__(self, node, keepTable=False):
        import numpy as np

        from MedDiffFMLib.imaging.volume import thinned
        from MedDiffFMLib.multimodal.attenuation import CT_KEV, WATER, mass_attenuation
        from MedDiffFMLib.multimodal.framing import frame_body

        volume = thinned(volumeFromNode(node), VOXEL_MM)
        self.frame = frame_body(volume, keepTable)
        density = np.where(self.frame.body, np.clip(volume.voxels, -1000, None) / 1000.0 + 1.0, 0.0)
        density *= mass_attenuation(WATER, CT_KEV) / MM_PER_CM
        padded = np.pad(density.astype(np.float32), 1)  # zero around, where rays enter and leave between voxels
        self._rasToIjk = np.linalg.inv(volume.ijk_to_ras @ _shift(-1))
        self._pixels = padded  # VTK's image shares its memory
        self._transform = vtk.vtkMatrixToHomogeneousTransform()
        self._reslice = vtk.vtkImageReslice()
        self._reslice.SetInputData(imageData(padded))
        self._reslice.SetResliceTransform(self._transform)
        self._reslice.SetInterpolationModeToLinear()
        self._reslice.SetBackgroundLevel(0.0)
        self._reslice.SetOutputSpacing(1.0, 1.0, 1.0)
        self._reslice.SetOutputOrigin(0.0, 0.0, 0.0)

    def picture(self, view, setup):
        """Attenuation -ln(I / I0), (j, i) float32 with ``PIXELS`` along the longer edge, and its beam.

        :param view, setup: of the library; see ``MedDiffFMLib.multimodal.views``. The number of pixels is this one's.
        :raises InputError: the source would stand in the body.
        """
        from dataclasses import replace

        import numpy as np
        import vtk.util.numpy_support as numpySupport

        from MedDiffFMLib.multimodal.views import aim

        beam, _complete = aim(view, self.frame, replace(setup, pixels=PIXELS))
        planesToRas, lengths = self._planes(beam)
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy((self._rasToIjk @ planesToRas).ravel().tolist())
        self._transform.SetInput(matrix)
        _, rows, columns = beam.detector.shape
        self._reslice.SetOutputExtent(0, columns - 1, 0, rows - 1, 0, len(lengths) - 1)
        self._reslice.Update()
        values = numpySupport.vtk_to_numpy(self._reslice.GetOutput().GetPointData().GetScalars())
        planes = values.reshape(len(lengths), rows * columns)
        return (lengths @ planes * _obliquity(beam)).reshape(rows, columns).astype(np.float32), beam

    def _planes(self, beam):
        """Planes in front of the detector that hold the body: matrix (4, 4) from pixel and plane to RAS, homogeneous,
        and mm of a ray at right angles to the detector that each plane stands for."""
        import numpy as np

        depths = beam.depths(self.frame.outline)
        near, far = float(depths.min()) - VOXEL_MM, float(depths.max()) + VOXEL_MM  # mm before the detector
        count = max(int(np.ceil((far - near) / STEP_MM)), 2)
        detector, normal = beam.detector.ijk_to_ras, beam.normal
        matrix = np.zeros((4, 4))
        matrix[:3, :2] = detector[:3, :2]
        if beam.source is None:
            step = (far - near) / count
            matrix[:3, 2] = normal * step
            matrix[:3, 3] = detector[:3, 3] - normal * (far - step / 2)
            matrix[3, 3] = 1.0
            return matrix, np.full(count, step, np.float32)
        whole = beam.source_depth
        far = min(far, whole - 1.0)
        first, last = whole / (whole - near), whole / (whole - far)  # s = 1 / t, 1 at the detector
        step = (last - first) / count
        inverse = first + step * (np.arange(count) + 0.5)
        matrix[:3, 2] = step * beam.source
        matrix[:3, 3] = (inverse[0] - 1.0) * beam.source + detector[:3, 3]
        matrix[3, 2:] = step, inverse[0]
        return matrix, (whole * step / inverse**2).astype(np.float32)


def _obliquity(beam):
    """How much longer the ray of each pixel is than one at right angles to the detector, (j * i,)."""
    import numpy as np

    if beam.source is None:
        return 1.0
    return np.linalg.norm(beam.pixels() - beam.source, axis=1) / beam.source_depth


def _shift(steps):
    import numpy as np

    matrix = np.eye(4)
    matrix[:3, 3] = steps
    return matrix
