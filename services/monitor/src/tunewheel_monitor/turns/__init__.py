"""Turns of the wheel: the alarms behind a turn, the fate of its version, and whether the turn helped.

``facts.py`` folds the turns from the log, ``counting.py`` counts the traffic that an alarm was about, and
``conclusion.py`` compares the traffic before and after, and makes ``turn.completed``.
"""
