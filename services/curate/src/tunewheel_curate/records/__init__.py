"""What was ingested: the record table, what fills it, and which of its records count."""
