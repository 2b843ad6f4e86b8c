"""Finds, verifies and loads the base model that adapters are trained on."""
