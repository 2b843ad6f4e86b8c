"""Builds what answers can be retrieved from."""
