"""Fine-tunes a model on a dataset version."""
