"""CT, MR, X-ray and text from each other."""
