"""Personal data: found by patterns, and taken out."""
