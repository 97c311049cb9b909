"""Images of one modality from those of another."""
