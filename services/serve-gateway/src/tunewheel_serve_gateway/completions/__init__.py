"""Completions after they were answered: recorded, kept on the disk, published to Kafka, found for
feedback."""
