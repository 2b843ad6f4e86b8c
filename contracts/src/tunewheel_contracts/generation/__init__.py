"""What is generated from the models and topics: JSON Schemas, AsyncAPI documents, the catalogue."""
