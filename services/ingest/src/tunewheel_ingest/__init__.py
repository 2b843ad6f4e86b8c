"""Takes tickets, documents and examples in, normalises them, emits records."""
