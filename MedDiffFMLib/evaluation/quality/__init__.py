"""Figures of quality: a model beside baselines on unseen cases."""
