"""Where in a CT what a sentence says is to be found."""
