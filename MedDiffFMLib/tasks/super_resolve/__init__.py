"""Task "super_resolve": thin slices from thick ones."""
