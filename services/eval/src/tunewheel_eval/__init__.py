"""Judges a trained candidate by criteria declared before training."""
