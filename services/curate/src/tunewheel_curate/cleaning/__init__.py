"""Text as its writers meant it, without what frames it."""
