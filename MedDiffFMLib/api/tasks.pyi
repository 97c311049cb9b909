"""Types of the task functions. Made by ``python -m MedDiffFMLib.api.stub``; do not edit."""

from ..core.progress import CancelToken, ProgressCallback
from .inputs import LabelsLike, ModelLike, VolumeLike
from .result import Result

def anomaly(
    volume: VolumeLike,
    model: ModelLike = "starter-ct",
    *,
    threshold: float = 2.0,
    minimum_volume: float = 100.0,
    at_most: int = 5,
    method: str = "detector",
    seed: int = 0,
    region: str | None = None,
    mask: LabelsLike | None = None,
    label: str | None = None,
    anatomy: LabelsLike | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Marks regions that do not look like normal tissue in their place.

    Args:
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        model: What load_model gives, a catalogue name, or a weight file. Default: starter-ct.
        threshold: Findings are regions with a larger z-score (0.5 to 50). Default: 2.0.
        minimum_volume: Smaller regions are not listed (0 to 1e+06 mm3). Default: 100.0.
        at_most: Only the most conspicuous findings are listed and filled (1 to 100). Default: 5.
        method: detector: what each place looks like, judged by a small network; cubes: hidden cubes
            that the prior predicts (detector, cubes). Default: detector.
        seed: Start of the random numbers: same seed, same result. Default: 0.
        region: Body region: head-neck, chest, abdomen, pelvis, whole-body, or none to tell the model
            nothing; automatic when not given.
        mask: Label map of where to work, on the CT's grid: a Volume, an array (k, j, i), or a path.
        label: Name or number of the one label of the mask to take; all when not given.
        anatomy: Organ labels (TotalSegmentator's, 118 for the body) on the CT's grid.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["anomaly"]``, ``volumes["healthy"]``, ``volumes["uncertainty"]``,
            ``tables["findings"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def denoise(
    volume: VolumeLike,
    model: ModelLike = "starter-ct",
    *,
    noise: float | None = None,
    strength: float = 1.0,
    steps: int = 0,
    consistency: float = 3.0,
    quick: bool = False,
    prior: bool = False,
    blocks: float = 0.5,
    detail: float = 1.0,
    tune: bool = False,
    spacing: float | None = None,
    seed: int = 0,
    region: str | None = None,
    anatomy: LabelsLike | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Removes noise and shows what was removed.

    Args:
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        model: What load_model gives, a catalogue name, or a weight file. Default: starter-ct.
        noise: Noise level of the input; estimated from soft tissue when not given (0.5 to 500 HU).
        strength: Factor on the noise level: above 1 smooths more, below 1 keeps more (0.1 to 3).
            Default: 1.0.
        steps: 0: passes from coarse to fine, the least error. More: so many DiffPIR steps, which keep
            more texture (0 to 100). Default: 0.
        consistency: With several steps, trust in the prior against the input (DiffPIR's lambda) (0.01
            to 1000). Default: 3.0.
        quick: The network alone, without the filters beside it: half to two thirds of the time, and
            more error left. Default: False.
        prior: The prior's passes in the small network's place, in several times its time: for a prior
            that was trained on scans unlike those of the small network, which knows noise of 6 to 90 HU
            in diagnostic CTs. Default: False.
        blocks: Share of thresholded blocks beside the network: they err otherwise, so that the mean
            errs less; 0 leaves the network alone, without the part of non-local means that a head asks
            for; 1 is the filters alone. Not used with several steps, nor when quick (0 to 1). Default:
            0.5.
        detail: Share of the detail that comes back: a Wiener filter finds what was taken for noise by
            mistake, by the noise's own spectrum; 0 gives back nothing. Not used with several steps (0
            to 1). Default: 1.0.
        tune: Fit the network's last layer to this scan first, in half a minute; what it had stays where
            voxels that were held out do not gain. Not possible with several steps. Default: False.
        spacing: Isotropic working voxel; the scanner's own voxels when not given (0.5 to 10 mm).
        seed: Start of the random numbers: same seed, same result. Default: 0.
        region: Body region: head-neck, chest, abdomen, pelvis, whole-body, or none to tell the model
            nothing; automatic when not given.
        anatomy: Organ labels (TotalSegmentator's, 118 for the body) on the CT's grid.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["denoised"]``, ``volumes["noise"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def inpaint(
    volume: VolumeLike,
    model: ModelLike = "starter-ct",
    *,
    mask: LabelsLike,
    steps: int = 1,
    samples: int = 1,
    feather: float = 1.5,
    margin: float = 3.0,
    spacing: float | None = None,
    sigma_max: float = 10.0,
    texture: str = "scan",
    seed: int = 0,
    region: str | None = None,
    label: str | None = None,
    anatomy: LabelsLike | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Fills a mask with healthy tissue.

    Args:
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        model: What load_model gives, a catalogue name, or a weight file. Default: starter-ct.
        mask: Label map of what to change, on the CT's grid: a Volume, an array (k, j, i), or a path.
        steps: Network evaluations a sample; with the shipped prior more than 1 add noise rather than
            tissue. 0: the surface of least bending in place of what the prior expects (0 to 200).
            Default: 1.
        samples: Samples averaged: 1 is one plausible filling with texture, more come closer to the
            expected tissue (1 to 64). Default: 1.
        feather: Width inside the mask's rim over which input and filling blend (0 to 20 mm). Default:
            1.5.
        margin: Ring around the mask that the model may not look at, since a lesion's rim lies there (0
            to 30 mm). Default: 3.0.
        spacing: Isotropic working voxel; the scanner's own voxels when not given (0.5 to 10 mm).
        sigma_max: Noise that is put on the biharmonic initialization, in units of 1000 HU; more leaves
            more to the model (0.01 to 80). Default: 10.0.
        texture: scan: what the rim tells, with texture from one of the most similar places nearby in
            the same scan; none: the smooth tissue that the prior expects (scan, none). Default: scan.
        seed: Start of the random numbers: same seed, same result. Default: 0.
        region: Body region: head-neck, chest, abdomen, pelvis, whole-body, or none to tell the model
            nothing; automatic when not given.
        label: Name or number of the one label of the mask to take; all when not given.
        anatomy: Organ labels (TotalSegmentator's, 118 for the body) on the CT's grid.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["inpainted"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def generate_lesion(
    volume: VolumeLike,
    model: ModelLike = "starter-ct",
    *,
    kind: str = "like-training",
    mean: float | None = None,
    contrast: float | None = None,
    spread: float | None = None,
    diameter: float | None = None,
    organ: int | None = None,
    tries: int = 4,
    agreement: float = 0.8,
    steps: int = 12,
    rim: float = 3.0,
    sigma_max: float = 1.0,
    spacing: float | None = None,
    control: str = "auto",
    control_weight: float = 1.0,
    seed: int = 0,
    region: str | None = None,
    mask: LabelsLike | None = None,
    label: str | None = None,
    anatomy: LabelsLike | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Puts a lesion that the patient does not have into a CT.

    Args:
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        model: What load_model gives, a catalogue name, or a weight file. Default: starter-ct.
        kind: Density of the lesion; the default is taken from training lesions in such surroundings
            (like-training, solid, part-solid, ground-glass, calcified, fluid, hypodense, hyperdense).
            Default: like-training.
        mean: Mean of the lesion, in place of the kind's (-1000 to 1000 HU).
        contrast: Mean of the lesion over that of its surroundings, in place of the kind's (-1500 to
            1500 HU).
        spread: Standard deviation of HU in the lesion's core; when not given, what the model makes (1
            to 500 HU).
        diameter: Make a lumpy ellipsoid of this size at a random place inside the mask; not given, the
            mask is the lesion (2 to 150 mm).
        organ: With a diameter and without a mask: number of the organ in the organ map where the lesion
            is to be (1 to 118).
        tries: Lesions drawn at most until the outline of one agrees with the mask; the best is kept (1
            to 50). Default: 4.
        agreement: Dice of outline and mask from which a lesion is good (0 to 0.99). Default: 0.8.
        steps: Network evaluations of each (1 to 200). Default: 12.
        rim: Width outside the lesion over which the model's image blends into the input (0 to 20 mm).
            Default: 3.0.
        sigma_max: Noise at the start, in units of 1000 HU; more leaves more to the model (0.05 to 80).
            Default: 1.0.
        spacing: Isotropic working voxel; when not given, the scanner's own unless the lesion is large
            (0.5 to 10 mm).
        control: ControlNet: auto takes the model's own; or a name or a file. Default: auto.
        control_weight: Weight of the ControlNet (0 to 2). Default: 1.0.
        seed: Start of the random numbers: same seed, same result. Default: 0.
        region: Body region: head-neck, chest, abdomen, pelvis, whole-body, or none to tell the model
            nothing; automatic when not given.
        mask: Label map of where to work, on the CT's grid: a Volume, an array (k, j, i), or a path.
        label: Name or number of the one label of the mask to take; all when not given.
        anatomy: Organ labels (TotalSegmentator's, 118 for the body) on the CT's grid.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["with_lesion"]``, ``volumes["lesion"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def super_resolve(
    volume: VolumeLike,
    model: ModelLike = "starter-ct",
    *,
    mode: str = "slices",
    factor: int | None = None,
    axis: str = "auto",
    steps: int = 1,
    tune: bool = False,
    noise: float = 0.0,
    control: str = "auto",
    control_weight: float = 1.0,
    seed: int = 0,
    region: str | None = None,
    anatomy: LabelsLike | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Makes thin slices out of thick ones, or halves every voxel.

    Args:
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        model: What load_model gives, a catalogue name, or a weight file. Default: starter-ct.
        mode: slices: thin slices out of thick ones; isotropic: every voxel halved along all axes
            (slices, isotropic). Default: slices.
        factor: Thin slices out of each thick one; when not given, as many as come closest to cubes (2
            to 6).
        axis: Voxel axis across the slices; auto takes the coarsest (auto, i, j, k). Default: auto.
        steps: Network evaluations. 1 has the least error; more add plausible texture (1 to 200).
            Default: 1.
        tune: Learn from the scan's own slices first, in half a minute or so, how thin slices look; used
            if it errs less in slices that were held out. Only for slices, with voxels within them about
            as fine as the thin ones. Default: False.
        noise: Noise of the measured slices: averages of the result may differ by that; 0 keeps them (0
            to 200 HU). Default: 0.0.
        control: ControlNet: auto takes the model's own, none works with the prior alone; or a name or a
            file. Default: auto.
        control_weight: Weight of the ControlNet; 0 leaves the prior alone (0 to 2). Default: 1.0.
        seed: Start of the random numbers: same seed, same result. Default: 0.
        region: Body region: head-neck, chest, abdomen, pelvis, whole-body, or none to tell the model
            nothing; automatic when not given.
        anatomy: Organ labels (TotalSegmentator's, 118 for the body) on the CT's grid.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["fine"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def synthesize(
    model: ModelLike = "starter-ct",
    *,
    size: tuple[float, float, float] | None = None,
    spacing: float | None = None,
    make: str = "ct",
    views: str = "ap",
    layout: str = "auto",
    texture: float = 0.1,
    guidance: float = 1.0,
    whole_steps: int = 6,
    middle_steps: int = 6,
    native_steps: int = 6,
    sigma_max: float = 80.0,
    sigma_min: float = 0.02,
    detail: float = 2.0,
    companion: str = "auto",
    seed: int = 0,
    region: str | None = None,
    ct: VolumeLike | None = None,
    mr: VolumeLike | None = None,
    xray: VolumeLike | None = None,
    prompt: str | None = None,
    anatomy: LabelsLike | None = None,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Makes a whole CT that shows no patient.

    Args:
        model: What load_model gives, a catalogue name, or a weight file. Default: starter-ct.
        size: Edges right-left, front-back, feet-head: the body's, at most 300 along it, 700 of a whole
            one; or the anatomy map's (20 to 2000 mm).
        spacing: Edge of the cubic voxels: 1.5, or the voxels of the anatomy map (0.5 to 20 mm).
        make: What to make, separated by commas: ct, mr, xray, text. All of it is made from one CT, and
            so agrees. Default: ct.
        views: Views of an X-ray that is made, as of radiograph. Default: ap.
        layout: Where the anatomy comes from: template bends the body of a published CT, or the mean
            neck of many, into nobody's and lets the prior make the image; network lets the networks
            invent both; auto takes a template where one shows the region (auto, template, network).
            Default: auto.
        texture: Noise level at which the image expected of an anatomy starts, in units of 1000 HU: more
            changes more of it (0.02 to 2). Default: 0.1.
        guidance: Weight of region and anatomy: 0 ignores them; above 1 exaggerates them and takes twice
            the time (0 to 10). Default: 1.0.
        whole_steps: Network evaluations for the coarse image of the whole volume (1 to 500). Default:
            6.
        middle_steps: Network evaluations on each grid between the coarsest and the finest (1 to 200).
            Default: 6.
        native_steps: Network evaluations on the finest grid (1 to 200). Default: 6.
        sigma_max: Noise level at which the coarse image starts, in units of 1000 HU (1 to 80). Default:
            80.0.
        sigma_min: Noise level below which nothing is invented any more, in units of 1000 HU (0.002 to
            0.1). Default: 0.02.
        detail: Factor on the noise level at which finer grids start: more invents more detail and keeps
            less (0.1 to 10). Default: 2.0.
        companion: Network for the coarse image: auto takes the model's own companion, none the model
            itself; or a name or a file. Default: auto.
        seed: Start of the random numbers: same seed, same result. Default: 0.
        region: Body region: head-neck, chest, abdomen, pelvis, whole-body, or none to tell the model
            nothing; automatic when not given.
        ct: A CT that is given: what else is asked for is made of it: a Volume, or the path of a file or
            DICOM folder.
        mr: A T1-weighted MR that is given: a Volume, or the path of a file or DICOM folder.
        xray: An X-ray that is given, a file of radiograph: a Volume, or the path of a file or DICOM
            folder.
        prompt: What to make: chest CT with contrast agent, 5 mm slices.
        anatomy: Organ labels (TotalSegmentator's, 118 for the body) whose grid the result takes.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["synthetic"]``, ``volumes["mr"]``, ``volumes["xray"]``,
            ``tables["asked"]``, ``texts["text"]``, ``texts["understood"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def segment(
    volume: VolumeLike,
    model: ModelLike = "starter-ct",
    *,
    head: str | None = None,
    threshold: float | None = None,
    minimum_volume: float = 0.0,
    samples: int | None = None,
    seed: int = 0,
    region: str | None = None,
    mask: LabelsLike | None = None,
    label: str | None = None,
    anatomy: LabelsLike | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Outlines what you outlined in a few other scans, and says how sure it is.

    Args:
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        model: What load_model gives, a catalogue name, or a weight file. Default: starter-ct.
        head: Name of a segmentation head, or a .safetensors file; your latest one for the model when
            not given.
        threshold: Probability from which a voxel belongs to a structure; of each structure that with
            the largest expected overlap (0.1 to 0.5) when not given (0.01 to 0.99).
        minimum_volume: Smaller separate pieces of a structure are left out (0 to 1e+07 mm3). Default:
            0.0.
        samples: Size of the ensemble of a method that samples; the method's own when not given (1 to
            100).
        seed: Start of the random numbers: same seed, same result. Default: 0.
        region: Body region: head-neck, chest, abdomen, pelvis, whole-body, or none to tell the model
            nothing; automatic when not given.
        mask: Label map of where to work, on the CT's grid: a Volume, an array (k, j, i), or a path.
        label: Name or number of the one label of the mask to take; all when not given.
        anatomy: Organ labels (TotalSegmentator's, 118 for the body) on the CT's grid.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["segmentation"]``, ``volumes["uncertainty"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def deblur(
    volume: VolumeLike,
    model: ModelLike = "starter-ct",
    *,
    fwhm: float = 1.2,
    noise: float | None = None,
    steps: int = 2,
    seed: int = 0,
    region: str | None = None,
    anatomy: LabelsLike | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Sharpens what a smooth reconstruction kernel blurred, and shows what that changed.

    Args:
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        model: What load_model gives, a catalogue name, or a weight file. Default: starter-ct.
        fwhm: Width at half maximum of the blur within slices, as of the kernel (0.1 to 5 mm). Default:
            1.2.
        noise: Noise level of the input; estimated from soft tissue when not given (0.5 to 200 HU).
        steps: Network evaluations; the blur is undone between them (2 to 20). Default: 2.
        seed: Start of the random numbers: same seed, same result. Default: 0.
        region: Body region: head-neck, chest, abdomen, pelvis, whole-body, or none to tell the model
            nothing; automatic when not given.
        anatomy: Organ labels (TotalSegmentator's, 118 for the body) on the CT's grid.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["deblurred"]``, ``volumes["difference"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def radiograph(
    volume: VolumeLike,
    *,
    views: str = "ap",
    look: str = "digital",
    pixels: int = 512,
    source_distance: float = 1800.0,
    gap: float = 50.0,
    field: float | None = None,
    parallel: bool = False,
    complete: bool = True,
    table: bool = False,
    camera: tuple[float, float, float, float, float, float, float, float, float] | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Computes X-rays of a CT from any side.

    Args:
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        views: Views, separated by commas: ap, pa, lat, rlat, obl, angles such as lao30, cran20 or
            rao30-caud20, camera. Default: ap.
        look: digital: attenuation; film: its density on film; bone, soft: grams of either along the
            rays (digital, film, bone, soft). Default: digital.
        pixels: Pixels along the longer edge of the detector (16 to 4096). Default: 512.
        source_distance: From the source to the detector; 1000 to 1200 for a C-arm or at the bedside
            (300 to 10000 mm). Default: 1800.0.
        gap: From the body to the detector (0 to 2000 mm). Default: 50.0.
        field: Edge of a square detector; as large as the body's shadow when not given (20 to 3000 mm).
        parallel: Parallel rays in place of a source. Default: False.
        complete: Leave out what lies so close to an end of the scan that rays pass through part of the
            body only. Default: True.
        table: Keep the table and all else beside the body. Default: False.
        camera: A view more, from where a 3-D view is seen: its position, focal point and view up, RAS
            (mm).
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["radiograph"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def reconstruct(
    volume: VolumeLike,
    model: ModelLike = "starter-ct",
    *,
    views: str = "",
    pixels: str = "attenuation",
    pixel: float | None = None,
    spacing: float = 4.0,
    draws: int = 16,
    detail: bool = True,
    source_distance: float = 1800.0,
    gap: float = 50.0,
    sources: tuple[float, ...] | None = None,
    seed: int = 0,
    region: str | None = None,
    second: VolumeLike | None = None,
    third: VolumeLike | None = None,
    fourth: VolumeLike | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Makes a CT whose projections are one or more X-rays of a trunk.

    Args:
        volume: X-ray: a Volume, or the path of a file or DICOM folder.
        model: What load_model gives, a catalogue name, or a weight file. Default: starter-ct.
        views: Directions of the X-rays in their order, such as ap,lat; left out for files of
            radiograph, which know them. Default: .
        pixels: attenuation: -ln(I / I0); film: density on film, as radiograph's; counts: of a detector;
            picture: gray values, more attenuation brighter (attenuation, film, counts, picture).
            Default: attenuation.
        pixel: Edge of a pixel at the detector for views that are named; what the file says when not
            given (0.05 to 20 mm).
        spacing: Edge of the voxels (3 to 10 mm). Default: 4.0.
        draws: Draws of noise at each level: more is smoother and takes longer (2 to 64). Default: 16.
        detail: Let the prior better the image on the grid of the result too. Default: True.
        source_distance: From source to detector for views that are named (500 to 10000 mm). Default:
            1800.0.
        gap: From the body to the detector for views that are named (0 to 500 mm). Default: 50.0.
        sources: Where the sources stood, three numbers for each X-ray in RAS, in place of what the
            files say (mm).
        seed: Start of the random numbers: same seed, same result. Default: 0.
        region: Body region: head-neck, chest, abdomen, pelvis, whole-body, or none to tell the model
            nothing; automatic when not given.
        second: The second X-ray of the same patient in the same position: a Volume, or the path of a
            file or DICOM folder.
        third: The third X-ray of the same patient in the same position: a Volume, or the path of a file
            or DICOM folder.
        fourth: The fourth X-ray of the same patient in the same position: a Volume, or the path of a
            file or DICOM folder.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["ct"]``, ``volumes["uncertainty"]``, ``volumes["residual"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def describe(
    volume: VolumeLike,
    *,
    modality: str = "ct",
    certainty: float = 0.7,
    reader: str | None = None,
    mask: LabelsLike | None = None,
    label: str | None = None,
    anatomy: LabelsLike | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Says in sentences what can be measured in a CT, each with the place to check it.

    Args:
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        modality: What the scan is: a CT is measured; of an MR or an X-ray a network estimates very
            little, not validated (ct, mr, xray). Default: ct.
        certainty: Sentences that are less certain are left out and listed as not assessed (0.7 to 1).
            Default: 0.7.
        reader: What reads facts in MRs and X-rays: the .safetensors file of a training, or its name in
            the catalogue; the reader that ships where nothing is given.
        mask: Label map of where to work, on the CT's grid: a Volume, an array (k, j, i), or a path.
        label: Name or number of the one label of the mask to take; all when not given.
        anatomy: Organ labels (TotalSegmentator's, 118 for the body) on the CT's grid.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["evidence"]``, ``tables["facts"]``, ``texts["description"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def find(
    volume: VolumeLike,
    *,
    prompt: str,
    places: int = 5,
    encoders: str | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Shows where in a CT what you write is most likely to be found.

    Args:
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        prompt: What to look for: nodule in the right upper lobe.
        places: Places that are listed, at least 40 mm apart (1 to 50). Default: 5.
        encoders: Name of encoders, or a .safetensors file; those of the catalogue when not given.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["likeness"]``, ``tables["places"]``, ``texts["understood"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def compare(
    earlier: VolumeLike,
    volume: VolumeLike,
    *,
    earlier_date: str = "",
    later_date: str = "",
    growth: float = 25.0,
    threshold: float = 5.0,
    minimum_volume: float = 100.0,
    misfit: float = 0.5,
    earlier_findings: str = "",
    later_findings: str = "",
    earlier_mask: LabelsLike | None = None,
    mask: LabelsLike | None = None,
    label: str | None = None,
    anatomy: LabelsLike | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Brings an earlier CT of the same patient onto a later one, and says what changed.

    Args:
        earlier: Earlier CT of the same patient: a Volume, or the path of a file or DICOM folder.
        volume: CT in HU: a Volume, or the path of a file or DICOM folder.
        earlier_date: Day of the earlier scan, YYYY-MM-DD, for doubling times. Default: .
        later_date: Day of the later scan, YYYY-MM-DD. Default: .
        growth: Lesions whose volume grew by this much are called grown; shrunk where the earlier one
            was so much larger; stable in between (1 to 1000 %). Default: 25.0.
        threshold: Regions are listed whose averaged change is more than this many standard deviations
            of the noise (2 to 50). Default: 5.0.
        minimum_volume: Smaller changed regions are not listed (0 to 1e+06 mm3). Default: 100.0.
        misfit: Error of the registration that edges are allowed before they count as change (0 to 10
            mm). Default: 0.5.
        earlier_findings: Table (.csv) of the earlier scan's findings, as anomaly and describe write it,
            in place of a mask. Default: .
        later_findings: Table (.csv) of the later scan's findings, in place of a mask. Default: .
        earlier_mask: Lesions in the earlier CT, on its grid: a Volume, an array (k, j, i), or a path.
        mask: Label map of where to work, on the CT's grid: a Volume, an array (k, j, i), or a path.
        label: Name or number of the one label of the mask to take; all when not given.
        anatomy: Organ labels (TotalSegmentator's, 118 for the body) on the CT's grid.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["aligned"]``, ``volumes["change"]``, ``tables["lesions"]``,
            ``tables["changes"]``, ``texts["summary"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """

def translate(
    volume: VolumeLike,
    *,
    to: str = "ct",
    fade: bool = True,
    force: bool = False,
    progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
) -> Result:
    """Makes a CT from a T1-weighted MR of trunk or limb, or an MR-like image from a CT, with its likely error.

    Args:
        volume: CT or MR: a Volume, or the path of a file or DICOM folder.
        to: What is made: ct from an MR, or mr-t1 from a CT (ct, mr-t1). Default: ct.
        fade: Fall back to the guess by intensities where the MR looks unlike those in training.
            Default: True.
        force: Work on values that do not look like those of a scan, with a warning. Default: False.
        progress: Called with a ProgressEvent after each part of the work.
        cancel: Token whose cancel() ends the run with Cancelled.

    Returns:
        Result with ``volumes["ct"]``, ``volumes["mr"]``, ``volumes["uncertainty"]``,
            ``volumes["mr_uncertainty"]``, ``volumes["outside"]``.

    Raises:
        InputError: an input, a parameter, or a combination of them cannot be used.
        ModelError: there is no such model, or it cannot do this task.
        DeviceError: the device is absent, or has too little memory even after every fallback.
        Cancelled: ``cancel`` was used.
    """
