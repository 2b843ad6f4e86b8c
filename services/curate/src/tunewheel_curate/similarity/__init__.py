"""Similarity of texts by word bigrams, and a growing index of near-duplicates."""
