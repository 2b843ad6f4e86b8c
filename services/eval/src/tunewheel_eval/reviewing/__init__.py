"""Human review: which prompts people compare, what they said together, and what follows from it."""
