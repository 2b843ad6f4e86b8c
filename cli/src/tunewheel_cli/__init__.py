"""The tunewheel command."""
