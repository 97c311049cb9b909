"""Archives that scans are fetched from: DICOMweb and the DICOM network."""
