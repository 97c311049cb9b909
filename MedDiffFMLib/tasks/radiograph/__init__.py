"""X-rays of a CT."""
