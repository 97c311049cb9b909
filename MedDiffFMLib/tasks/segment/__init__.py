"""Task "segment": structures outlined as in a few other scans."""
