"""Reads documents as Markdown and sections. Parsers of complex formats run in a process with limits."""
