"""Task "synthesize": a CT that shows no patient."""
