from __future__ import annotations

from tunewheel_generation.prefix_cache import PrefixCache, common

HELP, SALES = list(range(100, 120)), list(range(200, 220))


def held(rows: PrefixCache) -> dict[int, list[int]]:
    return {row: tokens for _, tokens, row in rows}


def test_a_busy_system_prompt_takes_one_row_and_leaves_the_others() -> None:
    rows = PrefixCache([5, 6])
    sales, _ = rows.replace(None, [*SALES, 1])
    taken = [rows.replace(None, [*HELP, question]) for question in range(10)]
    assert {row for row, _ in taken} == {taken[0][0]}
    assert [held for _, held in taken] == [0, *[len(HELP)] * 9]
    assert held(rows)[sales] == [*SALES, 1]


def test_the_row_that_was_of_no_use_for_longest_goes_first() -> None:
    rows = PrefixCache([5, 6])
    (first, _), (second, _) = rows.replace(None, HELP), rows.replace(None, SALES)
    rows.touch(first)
    assert rows.replace(None, [*SALES[:2], 3, 4, 5]) == (second, 2)
    assert held(rows)[first] == HELP


def test_adapters_do_not_share() -> None:
    rows, adapter = PrefixCache([5, 6]), object()
    assert rows.replace(None, HELP) == (5, 0)
    assert rows.replace(adapter, HELP) == (6, 0)  # type: ignore[arg-type]
    assert rows.replace(adapter, SALES) == (5, 0)  # type: ignore[arg-type]


def test_a_row_that_is_not_kept_is_not_touched() -> None:
    rows = PrefixCache([5])
    rows.touch(0)
    assert list(held(rows)) == [5]


def test_the_common_beginning() -> None:
    assert [common([1, 2, 3], other) for other in ([1, 2, 4], [1, 2], [], [2], [1, 2, 3])] == [2, 2, 0, 0, 3]
    long = list(range(100))
    assert [common(long, [*long[:at], -1, *long[at + 1 :]]) for at in range(100)] == long
