"""A task of the tests: CT, MR and a text in; a radiograph, points and a text out. Not part of the library's table."""
