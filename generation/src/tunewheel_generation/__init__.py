"""Batched generation on a loaded base model. Each row of the batch may have its own adapter."""
