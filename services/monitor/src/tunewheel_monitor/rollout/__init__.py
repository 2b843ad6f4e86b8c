"""Judges rollouts: compares candidate and champion by bounds that hold at any time. Start with
``trials.py``."""
