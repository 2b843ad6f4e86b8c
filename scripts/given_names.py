"""Write ``redaction/src/tunewheel_redaction/given_names.txt`` from the lists of Faker (MIT licence).

Run ``uv run --no-project --with faker python scripts/given_names.py TEXT…``. TEXT are files of ordinary
English: a name whose small spelling is common there, such as "will" or "mark", is left out.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from importlib import import_module
from itertools import groupby
from pathlib import Path
from pkgutil import iter_modules

OUT = Path(__file__).resolve().parents[1] / "redaction/src/tunewheel_redaction/given_names.txt"
NAME = re.compile(r"[^\W\d_]{3,}(?:-[^\W\d_]+)*")
NEVER = """
January February March April May June July August September October November December Jan Feb Mar Apr Jun
Jul Aug Sep Oct Nov Dec Monday Tuesday Wednesday Thursday Friday Saturday Sunday German French Danish
English Italian Spanish Polish Dutch Turkish France Germany Italy Spain India China Mac Safari Edge
Chrome Sie Der Die Das Und Les Irc Addon Actual Manu Toon Matic Merchant Sales Princess Prince Royal King
Queen Duke Count Earl Baron Judge Lord Noble Star Angel Precious Lucky Happy Sunny Unique Treasure
Special Legend Messiah Saint Pope Dean Junior Senior Sir Lane Way Drive Place Close Court Grove Circle
Trail Gardens Terrace Street Avenue Road Square Mews Alley Mill
"""


def given_names() -> set[str]:
    """Return the given names of all of Faker's languages, as they are written in a sentence."""
    people = import_module("faker.providers.person")
    found: set[str] = set()
    for module in iter_modules(people.__path__):
        provider = import_module(f"{people.__name__}.{module.name}").Provider
        lists = [getattr(provider, name) for name in dir(provider) if "first" in name]
        found.update(str(name) for names in lists if not callable(names) for name in names)
    return {name for name in found if NAME.fullmatch(name) and name == name[0].upper() + name[1:].lower()}


def words(texts: list[str]) -> set[str]:
    """Return, capitalised, the words that are written small at least half as often as capitalised."""
    small, large = Counter[str](), Counter[str]()
    for text in texts:
        small.update(re.findall(r"(?<![\w@./-])[a-z]{3,}(?![\w@])", text))
        large.update(re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b", text))
    return {word.title() for word, times in small.items() if times >= max(2, large[word.title()] / 2)}


if __name__ == "__main__":
    texts = [Path(name).read_text(encoding="utf-8", errors="ignore") for name in sys.argv[1:]]
    names = sorted(given_names() - words(texts) - {*NEVER.split()})
    lines = (" ".join(group) for _, group in groupby(names, key=lambda name: name[0]))
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
