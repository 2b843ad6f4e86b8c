"""Splits examples into training and holdout, and remembers what was ever held out."""
