"""HTTP: what comes in, file by file or line by line, and what is taken back."""
