"""The library on which every Tunewheel service is built: Kafka, HTTP, identity, telemetry, object store."""
