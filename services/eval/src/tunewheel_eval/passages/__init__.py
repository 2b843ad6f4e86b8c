"""Held-out questions with passages: what is looked up for them, and what that does to answers."""
