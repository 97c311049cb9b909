"""Facts about a CT that are measured, each with the place where it can be checked."""
