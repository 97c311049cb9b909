"""Images of one modality from those of another, and facts about an image in words."""
