"""Passages of the project's documents in the rows that train, written as the gateway writes a prompt."""
