"""Publishes JSON Lines, CSV, folders of documents and object stores, streamed, and withdraws documents."""
