"""Conditions: what a network is given besides the noisy image."""
