"""Decides what open alarms lead to: from the log, the number of labels, and the clock.

``facts.py`` folds the log, ``deciding.py`` is the policy, ``dispatch.py`` brings them together.
"""
