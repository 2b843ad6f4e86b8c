"""Turns of the wheel: what began them, what became of them, whether they helped.

``facts.py`` knows the turns from the log, ``counting.py`` counts the traffic that an alarm was about,
``conclusion.py`` compares before and after and says ``turn.completed``.
"""
