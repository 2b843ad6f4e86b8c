"""The record table, how it is filled from the log, and which of its records count."""
