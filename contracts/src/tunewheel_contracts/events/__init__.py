"""Event classes, each with the specification of its topic, in one module per group of producers.
``topics.TOPICS`` lists all topics."""
