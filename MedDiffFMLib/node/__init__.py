"""Node of a department: series in over the DICOM network, tasks, results out; nothing lost, nothing twice."""
