"""Rollouts: candidate beside champion, judged by bounds that always hold. ``trials.py`` is the way in."""
