"""Modalities by name. Imports the standard library only."""

CT, MR, XR = "CT", "MR", "XR"
CT_OR_MR = "CT or MR"
"""Of an input that may be either; a task tells them apart."""
WORDS = {CT: "CT", MR: "MR", XR: "X-ray", CT_OR_MR: CT_OR_MR}
"""Modality -> what a user reads; the names are those of DICOM (0008,0060) but for X-rays, which it has several of."""
WITH_ARTICLE = {CT: "a CT", MR: "an MR", XR: "an X-ray", CT_OR_MR: "a CT or MR"}
MEMBERS = {CT_OR_MR: (CT, MR)}
"""Of what may be one of several."""
