"""Tasks, a folder each: ``spec`` holds the parameters, ``recipe`` the computation."""
