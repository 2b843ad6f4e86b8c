"""Judges measured figures by declared criteria, and says beforehand how likely a verdict is. Needs numpy and
scipy alone."""
