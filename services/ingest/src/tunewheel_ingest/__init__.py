"""Accepts tickets, documents, examples and feedback, normalises them, and publishes records."""
