"""Event models, topics and artifact formats of Tunewheel.

The pydantic classes here are the one source: JSON Schemas, the AsyncAPI document and the catalogue in
``docs/`` are generated from them.
"""
