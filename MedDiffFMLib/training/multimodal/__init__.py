"""Training of what makes one modality out of another."""
