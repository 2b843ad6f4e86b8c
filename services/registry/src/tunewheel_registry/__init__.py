"""Keeps the lifecycle of every model and the desired state of serving."""
