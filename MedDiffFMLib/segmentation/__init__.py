"""Segmentation methods that learn from outlined cases."""
