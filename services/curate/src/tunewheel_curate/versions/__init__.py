"""Writes a build as an immutable version: files, data card, validation suite."""
