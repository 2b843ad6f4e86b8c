"""Sources of projects: topics of other systems, and webhooks, whose records are mapped to events."""
