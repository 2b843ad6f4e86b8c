"""Drops exact, near and semantic duplicates."""
