"""Builds each project's search index from its published documents."""
