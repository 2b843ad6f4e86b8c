"""Training data: examples as token ids, the order of steps, and the layout of batches."""
