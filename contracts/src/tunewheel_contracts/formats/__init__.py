"""Artifact formats: what lies in the object store, and the project spec people write."""
