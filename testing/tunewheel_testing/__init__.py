"""Doubles and builders for the tests and benches of all packages. Nothing of the product imports it."""
