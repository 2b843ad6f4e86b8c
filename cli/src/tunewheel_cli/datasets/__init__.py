"""Dataset versions, read from the object store."""
