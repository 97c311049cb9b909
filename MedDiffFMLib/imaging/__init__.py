"""Images: volumes with their geometry, grids, resampling, files. Numbers alone; no network."""
