"""Reading kit: readers say which of two pieces of a CT is real, the one that was scanned or the one that was made."""
