"""Task "anomaly": where a CT differs from what the prior expects."""
