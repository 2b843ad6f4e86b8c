"""TRL's trainers, changed to train on planned steps, and their common parts."""
