"""Drafts a project of the files that somebody has: its task, base, recipe and criteria."""
