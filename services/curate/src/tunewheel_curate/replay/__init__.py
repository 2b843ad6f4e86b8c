"""General instruction data, mixed into training."""
