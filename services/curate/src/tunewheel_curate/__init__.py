"""Turns records into immutable, validated dataset versions."""
