"""The commands, grouped by subject: the running wheel, projects, the log."""
