"""What an answer must be: read, checked against the spec's schema, rules and glossary, and scored."""
