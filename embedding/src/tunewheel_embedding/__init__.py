"""Turns texts into vectors. Vectors of embedders with the same ``name`` can be compared."""
