"""What can be said about a model by what made and what judged it: its card, and how two versions differ."""
