"""Documents as passages, and the index that finds them: no Kafka, no HTTP."""
