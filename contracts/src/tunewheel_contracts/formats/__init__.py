"""Formats of artifacts in the object store, and of the project spec that people write."""
