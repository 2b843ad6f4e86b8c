"""Local inference engine: one base model, many adapters, one running batch."""
