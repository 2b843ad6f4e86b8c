"""Lineage: from source records over datasets and runs to models, evaluations, reviews and rollouts, and back.

``events`` turns one event into facts of a node, ``index`` folds the facts into a graph, ``records`` reads
which records a dataset was made of, ``tracing`` walks the graph, ``answer`` holds the API's response models.
"""
