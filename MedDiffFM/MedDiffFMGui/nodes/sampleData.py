"""The chest CT with a nodule and the MR of a thigh that come with the extension, in Slicer's Sample Data module."""

from pathlib import Path

from slicer.i18n import tr as _

CATEGORY = "MedDiff-FM"
FILES = {
    "thorax_lidc0001.nrrd": "3ef910e0e527d3eb80e3d3cff18bfa554ea68d545f1d7a31bda51a9355e41572",
    "thorax_lidc0001_mask.nrrd": "4d1fa96fe67335c1ef17f7d038f9cbca0160135367a41a26507409443be1f874",
    "thigh_sts001_mrT1.nrrd": "eb3357a636705df2ebca2aa5f447f9d8d29dcce47d0da1b63ddaf58ede8397ba",
}
"""File and SHA-256."""


def registerSampleData():
    """Offer the CT alone, with the nodule that its readers outlined, and the MR; nothing is downloaded."""
    import SampleData

    from MedDiffFMLib.core.resources import resource_folder

    folder = resource_folder() / "SampleData"
    picture = Path(__file__).resolve().parents[2] / "Resources" / "Icons" / "thorax_lidc0001.png"
    mrPicture = picture.with_name("thigh_sts001.png")
    *uris, mrUri = [(folder / name).as_uri() for name in FILES]
    *checksums, mrChecksum = [f"SHA256:{digest}" for digest in FILES.values()]
    *fileNames, mrFileName = FILES
    register = SampleData.SampleDataLogic.registerCustomSampleDataSource
    register(
        category=CATEGORY,
        sampleName=_("Thorax CT"),
        thumbnailFileName=str(picture),
        uris=uris[0],
        fileNames=fileNames[0],
        nodeNames="thorax_lidc0001",
        checksums=checksums[0],
    )
    register(
        category=CATEGORY,
        sampleName=_("Thorax CT with nodule"),
        thumbnailFileName=str(picture),
        uris=uris,
        fileNames=fileNames,
        nodeNames=["thorax_lidc0001", "thorax_lidc0001 nodule"],
        loadFileTypes=["VolumeFile", "SegmentationFile"],
        checksums=checksums,
    )
    register(
        category=CATEGORY,
        sampleName=_("Thigh MR (T1)"),
        thumbnailFileName=str(mrPicture),
        uris=mrUri,
        fileNames=mrFileName,
        nodeNames="thigh_sts001 MR",
        checksums=mrChecksum,
    )
