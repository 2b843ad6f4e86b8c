"""A build as an immutable version: its files, its card, its suite."""
