"""One live page of every project's place on the wheel."""
