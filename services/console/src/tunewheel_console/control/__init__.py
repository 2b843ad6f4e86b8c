"""The control API under ``/v1``: one file a noun. It answers from the fold that the pages show."""
