"""Generators of JSON Schemas, the AsyncAPI document and the documentation of events and spec."""
