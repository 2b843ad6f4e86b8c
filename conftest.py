"""The order of the tests: what waits longest starts first, so that two workers end together."""

from __future__ import annotations

import pytest

_FIRST = ("chaos", "e2e", "integration", "model")


def _rank(item: pytest.Item) -> int:
    return next((n for n, tier in enumerate(_FIRST) if item.get_closest_marker(tier)), len(_FIRST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by tier; within one the order of collection stays, and with it what tests of a file share.

    A file holds one tier's tests as a rule; where it does not, its longest decides, so that files stay whole.
    """
    ranks: dict[str, int] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        ranks[file] = min(ranks.get(file, len(_FIRST)), _rank(item))
    items.sort(key=lambda item: ranks[item.nodeid.partition("::")[0]])
