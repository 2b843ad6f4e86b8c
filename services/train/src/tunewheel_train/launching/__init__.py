"""Runs that are trained elsewhere: in a Job of a Kubernetes cluster. Nothing here loads torch."""
