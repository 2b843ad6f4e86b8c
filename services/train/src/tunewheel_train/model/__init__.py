"""The model that is trained: loaded, made fast, measured and saved."""
