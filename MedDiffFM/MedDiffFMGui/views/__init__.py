"""Results in the slice and 3D views."""
