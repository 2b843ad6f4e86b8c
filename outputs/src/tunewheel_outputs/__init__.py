"""Reads answers, checks them against the spec's schema, rules and glossary, and scores them."""
