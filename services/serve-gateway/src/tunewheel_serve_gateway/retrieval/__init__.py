"""Passages of a project's documents for the prompt: indexes, questions' vectors, what was found."""
