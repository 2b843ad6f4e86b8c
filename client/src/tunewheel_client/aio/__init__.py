"""The asynchronous client. ``tunewheel_client.sync`` is generated from this package, and not tracked."""
