"""A wheel on this machine: Kafka, topics, secrets and processes, and a connection to it."""
