"""When a version is due, and how one is built away from the event loop."""
