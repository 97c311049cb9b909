"""Task "generate_lesion": a lesion that the patient does not have."""
