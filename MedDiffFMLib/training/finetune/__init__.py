"""Fine-tuning: what is trained beside the frozen prior."""
