"""Texts as vectors. An embedder has a ``name`` that says what made its vectors, and their ``dimensions``."""
