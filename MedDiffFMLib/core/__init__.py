"""Ground floor: errors, files, progress. Imports nothing else of the library."""
