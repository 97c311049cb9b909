"""Installation of the worker's packages into Slicer's Python, on the user's click only."""

from .workerPython import TRAINING, missingRequirements


def install():
    """Install what is missing; every step asks first.

    torch goes through the PyTorch extension, which picks the build for this computer's GPU. If the user declines, the
    function returns and the requirement stays missing.

    :raises MedDiffFMError: the PyTorch extension is not there.
    :raises subprocess.CalledProcessError: pip failed.
    """
    missing = [*missingRequirements(), *missingRequirements(TRAINING)]
    torch = [requirement for requirement in missing if requirement.startswith("torch")]
    if torch and not installTorch(torch[0].removeprefix("torch")):
        return
    rest = [requirement for requirement in missing if requirement not in torch]
    installPackages(rest)


def installPackages(requirements):
    """Install packages into Slicer's Python; Slicer lists them and asks first.

    :param requirements: list of texts; none, nothing happens.
    :raises subprocess.CalledProcessError: pip failed.
    """
    import slicer.packaging

    if requirements:
        slicer.packaging.pip_ensure(requirements, requester="MedDiff-FM")


def installTorch(versionRequirement):
    """Install torch through the PyTorch extension; True once it is there."""
    from MedDiffFMLib.core.errors import MedDiffFMError

    try:
        import PyTorchUtils
    except ImportError:
        raise MedDiffFMError(
            "The PyTorch extension is not installed.",
            "Install it with the Extensions Manager, restart Slicer and click Install again; "
            "or choose another Python environment.",
        ) from None
    logic = PyTorchUtils.PyTorchUtilsLogic()
    return logic.installTorch(askConfirmation=True, torchVersionRequirement=versionRequirement) is not None
