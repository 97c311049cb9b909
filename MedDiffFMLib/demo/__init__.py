"""The demo on the bundled CT."""
