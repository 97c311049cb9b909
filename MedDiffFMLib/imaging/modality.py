"""Modalities by name. Imports the standard library only."""

CT, MR, XR = "CT", "MR", "XR"
WORDS = {CT: "CT", MR: "MR", XR: "X-ray"}
"""Modality -> what a user reads; the names are those of DICOM (0008,0060) but for X-rays, which it has several of."""
WITH_ARTICLE = {CT: "a CT", MR: "an MR", XR: "an X-ray"}
