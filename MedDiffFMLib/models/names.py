"""Names of models that the code itself knows."""

DEFAULT_MODEL = "starter-ct"
"""The prior that is taken where none is named."""
NO_MODEL = "none"
"""In settings and reports of a task that computes without weights."""
