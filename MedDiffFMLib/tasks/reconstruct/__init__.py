"""CT from X-rays."""
