"""Evaluates retrieval: looks passages up for held-out questions, and compares answers with and without
them."""
