"""What a model is judged by, and what gives it away."""
