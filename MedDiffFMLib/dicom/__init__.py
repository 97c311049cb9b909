"""DICOM: results as objects that an archive takes, series and masks out of folders, media and archives."""
