"""Time and memory of the tasks beside MONAI's stock parts."""
