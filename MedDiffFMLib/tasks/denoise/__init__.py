"""Task "denoise": noise removed."""
