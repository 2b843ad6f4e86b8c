"""The whole loop on the bundled example: two turns of the wheel, told as they happen."""
