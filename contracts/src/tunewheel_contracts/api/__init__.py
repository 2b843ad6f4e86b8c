"""Requests and answers of the control API, which the console serves under ``/v1``: one file a noun.

The service and its clients use the same models. An answer may have more fields than a reader of an earlier
release has in its model: readers ignore them. Times are in UTC; ids are never shortened.
"""
