"""Benchmarks and held-out questions, and the training examples that overlap them."""
