"""Puts passages of the project's documents into training prompts, in the form that the gateway uses."""
