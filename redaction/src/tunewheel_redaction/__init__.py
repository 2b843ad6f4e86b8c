"""Personal data: found by patterns, and taken out of texts and structured answers."""
