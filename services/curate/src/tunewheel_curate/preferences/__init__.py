"""Answers to avoid: pairs with the better one, and those that were only rated down."""
