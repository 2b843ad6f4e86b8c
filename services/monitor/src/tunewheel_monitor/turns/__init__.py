"""Turns of the wheel: the alarms behind a turn, the fate of its version, and whether the turn helped.

``facts.py`` knows the turns from the log, ``counting.py`` counts the traffic that an alarm was about,
``conclusion.py`` compares before and after and says ``turn.completed``.
"""
