"""What each caller may use, and what is charged for a request before the engine is asked."""
