"""Records that wait for a person before they train: the rules, the list, and people's decisions."""
