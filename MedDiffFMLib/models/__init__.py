"""Models: weight files and the catalogue."""
