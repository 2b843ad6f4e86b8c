"""Exports the model of a finished run for other software."""
