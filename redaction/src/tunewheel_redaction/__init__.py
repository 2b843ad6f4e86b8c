"""Finds personal data by patterns, and removes it from texts and structured answers."""
