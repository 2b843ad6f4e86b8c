"""Starts runs, watches their processes, and reports on them. Nothing here loads torch."""
