"""What came of what: source records, datasets, runs, models, evaluations, reviews, rollouts, both ways.

``events`` says what one event tells, ``index`` folds them, ``records`` reads which records a version was made
of, ``tracing`` walks the graph, ``answer`` is what the API returns.
"""
