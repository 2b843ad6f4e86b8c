# Generated from aio/__init__.py by scripts/client_sync.py; change that file instead.
"""The synchronous client. ``tunewheel_client.sync`` is generated from this package."""
