"""Networks: tensors in, tensors out, one window at a time."""
