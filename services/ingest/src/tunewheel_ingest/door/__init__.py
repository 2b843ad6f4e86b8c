"""The HTTP API: takes files and events, and withdraws documents."""
