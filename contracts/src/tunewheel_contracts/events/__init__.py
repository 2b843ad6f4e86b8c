"""Event classes by the service that produces them. ``topics.TOPICS`` lists them all."""
