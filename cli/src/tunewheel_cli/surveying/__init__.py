"""Looks at the examples of a file before they are published: what they hold, and what is wrong with them."""
