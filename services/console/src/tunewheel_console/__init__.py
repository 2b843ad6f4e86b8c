"""The console: a live page of all projects, pages for reviews and labels, and an API for the same actions."""
