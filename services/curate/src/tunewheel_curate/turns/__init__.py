"""Decides what open alarms lead to, and follows how each turn of the wheel ended.

``facts.py`` folds the log, ``deciding.py`` is the policy, ``labelling.py`` counts the labels that a turn
waits for, ``dispatch.py`` brings them together.
"""
