"""Launches runs as Jobs of a Kubernetes cluster. Nothing here loads torch."""
