"""TRL's trainers on planned steps, and what they have in common."""
