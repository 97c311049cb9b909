"""Task "inpaint": a mask filled with healthy tissue."""
