"""Generators of JSON Schemas, AsyncAPI documents and the documentation of events and spec."""
