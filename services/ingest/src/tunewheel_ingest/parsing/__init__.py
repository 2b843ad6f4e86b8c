"""Documents as Markdown and sections. What reads formats that others made runs in a process with limits."""
