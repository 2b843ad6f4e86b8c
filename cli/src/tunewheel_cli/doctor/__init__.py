"""``tunewheel doctor``: whether a Kafka, an object store and engines are as an installation needs them."""
