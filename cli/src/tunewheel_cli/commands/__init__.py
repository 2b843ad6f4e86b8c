"""The commands by what they deal with: the running wheel, projects, the log."""
