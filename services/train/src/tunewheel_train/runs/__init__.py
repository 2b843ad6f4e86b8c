"""Runs as the service sees them: found, started, watched, told of. Free of torch."""
