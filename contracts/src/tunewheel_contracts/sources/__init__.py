"""Turns the records of other systems into events, by the mapping of a project's source.

Pure: ``envelopes.py`` takes a message's record out of its envelope, ``mapping.py`` maps the record. Ingest
maps topics and webhooks; the command maps files, also for ``tunewheel source test``. The mappings that come
with Tunewheel are the files of ``mappings/``.
"""
