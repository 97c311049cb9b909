"""Before and after the network: working grid, body box and region, cropping."""
