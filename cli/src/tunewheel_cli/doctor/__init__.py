"""``tunewheel doctor``: checks the Kafka, object store, engines and processes of an installation."""
