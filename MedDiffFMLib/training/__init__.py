"""Training: the loop, windows, noise; ``pretrain`` and ``finetune`` use them."""
