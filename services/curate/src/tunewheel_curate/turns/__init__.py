"""Turns of the wheel: what an alarm leads to, when, and what became of each turn.

``facts.py`` keeps what the log says, ``deciding.py`` is the policy, ``labelling.py`` counts the labels that a
turn waits for, ``dispatch.py`` brings them together.
"""
