"""Batched generation on a loaded base model: one running batch, each row with its own adapter."""
