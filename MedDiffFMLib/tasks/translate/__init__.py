"""CT from MR, and an MR-like image from CT."""
