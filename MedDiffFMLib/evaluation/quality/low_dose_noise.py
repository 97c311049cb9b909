"""Low-dose CT noise, simulated in the projections.

Filtered back-projection is linear, so the noise of a lower dose is the reconstruction of the noise of its sinogram
alone; the image itself is never reconstructed and loses nothing. Each axial slice is projected with a parallel beam,
every ray gets Gaussian noise with the variance of its photon count (Poisson) and of the electronics, and ramp filter
and back-projection give that noise its correlation, its streaks along dense bone and its growth towards the center.

References: Kak and Slaney 1988, chapter 3 (filter, back-projection); Yu et al. 2012, J Comput Assist Tomogr 36:477
(dose reduction by noise insertion).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WATER_PER_MM = 0.0193
"""Linear attenuation of water at about 70 keV, 1/mm: the effective energy of a 120 kV spectrum."""
ELECTRONIC_QUANTA = 8.0
"""Standard deviation of the electronic noise of one ray, in detected photons."""
FEWEST_QUANTA = 4.0
"""Counts below this are what a scanner's own starvation correction would not let through."""
FULL_DOSE_NOISE_HU = 30.0 / np.sqrt(3.0)
"""Noise of the full dose, root mean square over the body: the tube current control holds it, whatever the patient's
size. The noise *added* at a quarter of the dose is then 30 HU."""


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel-beam geometry of one slice grid.

    Attributes:
        shape: pixels (j, i).
        spacing: pixel edges (i, j) in mm.
        views: number of angles over 180 degrees.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float]
    views: int

    @property
    def pitch(self) -> float:
        """Detector spacing at the isocenter, mm."""
        return min(self.spacing)

    @property
    def detectors(self) -> int:
        """Number of detectors: the slice's diagonal and a margin for interpolation."""
        extent = np.hypot(self.shape[0] * self.spacing[1], self.shape[1] * self.spacing[0])
        return int(np.ceil(extent / self.pitch)) + 4

    def interpolation(self, view: int):
        """Sparse (pixels, detectors): rows interpolate a projection at each pixel; its transpose projects pixels."""
        from scipy.sparse import csr_array

        angle = np.pi * (view + 0.5) / self.views
        y = (np.arange(self.shape[0]) - (self.shape[0] - 1) / 2) * self.spacing[1]
        x = (np.arange(self.shape[1]) - (self.shape[1] - 1) / 2) * self.spacing[0]
        position = (y[:, None] * np.sin(angle) + x[None, :] * np.cos(angle)).ravel() / self.pitch
        position += (self.detectors - 1) / 2
        left = np.floor(position).astype(np.int32)
        weight = (position - left).astype(np.float32)
        rows = np.arange(0, 2 * left.size + 1, 2, dtype=np.int32)
        columns = np.stack([left, left + 1], axis=1).ravel()
        values = np.stack([1 - weight, weight], axis=1).ravel()
        return csr_array((values, columns, rows), shape=(left.size, self.detectors))

    def project(self, interpolation, attenuation: np.ndarray) -> np.ndarray:
        """Line integrals of ``attenuation`` (pixels, slices) in 1/mm -> (detectors, slices), no unit.

        Pixels are splatted onto the detectors; a blur of one detector removes the moire that this leaves.
        """
        from scipy.ndimage import gaussian_filter1d

        area = self.spacing[0] * self.spacing[1]
        integrals = (interpolation.T @ attenuation) * np.float32(area / self.pitch)
        return gaussian_filter1d(integrals, 1.0, axis=0, mode="constant")

    def kernel(self) -> np.ndarray:
        """Ramp filter with a Hann window, one tap a detector, centered, 1/mm (Kak and Slaney, equation 3.61)."""
        n = np.arange(-self.detectors, self.detectors + 1)
        ramp = np.zeros(n.size)
        ramp[n == 0] = 0.25
        odd = n % 2 != 0
        ramp[odd] = -1.0 / (np.pi * n[odd]) ** 2
        spectrum = np.fft.fft(np.fft.ifftshift(ramp))
        window = 0.5 + 0.5 * np.cos(2 * np.pi * np.fft.fftfreq(n.size))
        return np.fft.fftshift(np.fft.ifft(spectrum * window).real) / self.pitch


def quanta(line_integrals: np.ndarray, incident: float) -> np.ndarray:
    """Expected photons behind the patient, never fewer than the scanner lets through."""
    return np.maximum(incident * np.exp(-line_integrals), FEWEST_QUANTA)


def added_variance(line_integrals: np.ndarray, incident: float, dose: float) -> np.ndarray:
    """Variance that lowering the dose to ``dose`` (0 to 1) adds to each line integral.

    A line integral measured with N photons has variance 1 / N + electronics^2 / N^2; the difference between the two
    doses is what has to be added. Without electronics this is (1 / dose - 1) times the full dose's variance.
    """
    full = quanta(line_integrals, incident)
    photons = (1 / dose - 1) / full
    electronics = (1 / dose**2 - 1) * (ELECTRONIC_QUANTA / full) ** 2
    return photons + electronics


def incident_photons(
    volume_hu: np.ndarray,
    spacing: tuple[float, float, float],
    body: np.ndarray,
    noise_hu: float = FULL_DOSE_NOISE_HU,
    views: int = 24,
) -> float:
    """Photons a ray that give the full dose a noise of ``noise_hu`` over the body, like tube current control.

    Args:
        volume_hu: (k, j, i), k along the patient's axis.
        spacing: (i, j, k) in mm.
        body: mask over which the mean variance counts.
        noise_hu: root of that mean variance, HU.
        views: angles used for the estimate.
    """
    from scipy.optimize import brentq
    from scipy.signal import fftconvolve

    beam = ParallelBeam(volume_hu.shape[1:], spacing[:2], views)
    attenuation, inside = _columns(_attenuation(volume_hu)), _columns(body.astype(np.float32))
    integrals = np.empty((views, beam.detectors, volume_hu.shape[0]))
    weights = np.empty_like(integrals)
    for view in range(views):
        interpolation = beam.interpolation(view)
        integrals[view] = beam.project(interpolation, attenuation)
        weights[view] = interpolation.T @ inside
    kernel = beam.kernel()
    # Linear interpolation between two detectors, averaged over where the pixel falls between them.
    neighbors = np.dot(kernel[1:], kernel[:-1]) / np.dot(kernel, kernel)
    squared = (kernel**2 * (2 + neighbors) / 3)[None, :, None]
    spread = fftconvolve(weights, squared, mode="same", axes=1) / weights.sum()
    scale = np.pi**2 / _views_needed(beam) * (1000 / WATER_PER_MM) ** 2

    def excess(log_incident: float) -> float:
        # Half the dose adds as much variance as the full dose has, electronics aside.
        variance = scale * float((spread * added_variance(integrals, 10**log_incident, 0.5)).sum())
        return np.log(variance / noise_hu**2)

    low, high = 2.0, 10.0
    if excess(high) > 0 or excess(low) < 0:
        return 10 ** (high if excess(high) > 0 else low)
    return float(10 ** brentq(excess, low, high, xtol=1e-4))


def low_dose_noise(
    volume_hu: np.ndarray, spacing: tuple[float, float, float], incident: float, dose: float = 0.25, seed: int = 0
) -> np.ndarray:
    """The noise, in HU, that an acquisition at ``dose`` of the full dose has in addition.

    Args:
        volume_hu: (k, j, i) CT, k along the patient's axis: slices are axial.
        spacing: (i, j, k) in mm.
        incident: photons a ray at full dose, before the patient; see :func:`incident_photons`.
        dose: fraction of the full dose, above 0 and below 1.
        seed: the same seed gives the same noise.

    Returns:
        float32 (k, j, i); add it to the volume.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    if not 0 < dose < 1:
        raise ValueError(f"dose is a fraction between 0 and 1, not {dose}")
    rng = np.random.default_rng(seed)
    beam = ParallelBeam(volume_hu.shape[1:], spacing[:2], 1)
    beam = ParallelBeam(beam.shape, beam.spacing, _views_needed(beam))
    attenuation = _columns(_attenuation(volume_hu))
    noise = np.zeros_like(attenuation)
    length = next_fast_len(3 * beam.detectors + 1, real=True)
    response = rfft(beam.kernel().astype(np.float32), length)[:, None]
    for view in range(beam.views):
        interpolation = beam.interpolation(view)
        deviation = np.sqrt(added_variance(beam.project(interpolation, attenuation), incident, dose))
        rays = rng.standard_normal(deviation.shape, dtype=np.float32) * deviation
        filtered = irfft(rfft(rays, length, axis=0) * response, length, axis=0)[beam.detectors :][: beam.detectors]
        noise += interpolation @ filtered.astype(np.float32)
    noise *= np.float32(np.pi / beam.views * 1000 / WATER_PER_MM)
    return np.ascontiguousarray(noise.T).reshape(volume_hu.shape)


def noise_ratio(volume_hu: np.ndarray, noise: np.ndarray, tissue: np.ndarray) -> float:
    """Noise of the CT itself, in units of ``noise``: what is left above a blur of one pixel, in homogeneous tissue.

    Args:
        volume_hu, noise: (k, j, i) HU; noise from :func:`low_dose_noise`, so that it has a CT's spectrum.
        tissue: soft tissue away from its edges; the median absolute deviation ignores the vessels in it.
    """
    from scipy.ndimage import gaussian_filter

    def fine(array: np.ndarray) -> float:
        array = np.asarray(array, dtype=np.float32)
        return float(np.median(np.abs(array - gaussian_filter(array, (0, 1, 1)))[tissue]))

    return fine(volume_hu) / max(fine(noise), 1e-6)


def _views_needed(beam: ParallelBeam) -> int:
    """As many angles as keep the arc between two rays at the rim within about a detector."""
    return int(np.clip(np.pi / 2 * beam.detectors / 1.3, 180, 720))


def _attenuation(volume_hu: np.ndarray) -> np.ndarray:
    """HU -> 1/mm, float32, never below vacuum."""
    return np.maximum(WATER_PER_MM * (1 + np.asarray(volume_hu, dtype=np.float32) / 1000), 0).astype(np.float32)


def _columns(volume: np.ndarray) -> np.ndarray:
    """(k, j, i) -> contiguous (pixels, slices), so that one sparse product serves all slices."""
    return np.ascontiguousarray(volume.reshape(volume.shape[0], -1).T)
