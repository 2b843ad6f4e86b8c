"""The model to train: loading, acceleration, measuring and saving."""
