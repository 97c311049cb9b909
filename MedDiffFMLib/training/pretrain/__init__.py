"""Training of the prior, its calibration, and the body coordinates."""
