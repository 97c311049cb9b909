"""Results as DICOM objects, by the kind of each output."""
