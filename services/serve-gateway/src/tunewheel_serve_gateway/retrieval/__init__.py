"""Retrieval: opens the projects' indexes, embeds questions, finds passages for the prompt."""
