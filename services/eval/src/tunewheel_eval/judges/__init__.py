"""Asks a judge which of two answers is better, and takes its error out of the figure."""
