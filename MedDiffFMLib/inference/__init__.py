"""Inference on whole volumes: engine, sliding windows, memory plan."""
