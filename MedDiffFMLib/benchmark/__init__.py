"""How fast, and in how much memory: the tasks beside a reference written with MONAI's stock parts."""
