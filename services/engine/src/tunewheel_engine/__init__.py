"""Local inference engine: a base model, its adapters, and whole models beside it."""
