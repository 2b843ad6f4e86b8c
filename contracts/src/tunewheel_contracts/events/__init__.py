"""Event classes, in one module per group of producers. ``topics.TOPICS`` lists all topics."""
