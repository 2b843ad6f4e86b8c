"""Write ``given_names.txt`` and ``family_names.txt`` of tunewheel_redaction from the lists of Faker (MIT
licence).

Run ``uv run --no-project --with faker --with english-words python scripts/names.py TEXT…``. TEXT are files
of ordinary English: a name whose small spelling is common there, such as "will" or "mark", is left out. So is
a family name that a dictionary has as a word, such as "heron": products have such names.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from itertools import groupby
from pathlib import Path
from pkgutil import iter_modules
from unicodedata import combining, normalize

OUT = Path(__file__).resolve().parents[1] / "redaction/src/tunewheel_redaction"
NAME = re.compile(r"[^\W\d_]{3,}(?:-[^\W\d_]+)*")
NEVER = """
January February March April May June July August September October November December Jan Feb Mar Apr Jun
Jul Aug Sep Oct Nov Dec Monday Tuesday Wednesday Thursday Friday Saturday Sunday German French Danish
English Italian Spanish Polish Dutch Turkish France Germany Italy Spain India China Mac Safari Edge Chrome
Sie Der Die Das Und Les Irc Addon Actual Manu Toon Matic Merchant Sales Princess Prince Royal King Queen
Duke Count Earl Baron Judge Lord Noble Star Angel Precious Lucky Happy Sunny Unique Treasure Special Legend
Messiah Saint Pope Dean Junior Senior Sir Lane Way Drive Place Close Court Grove Circle Trail Gardens
Terrace Street Avenue Road Square Mews Alley Mill Poland Austria Holland Ireland Asia America Texas Florida
Nevada Carolina Louisiana Odessa Zaire Essex Durham Lancaster Kinder Bravo Paas Font Hyatt Santander Kong
Obama Ford Honda Suzuki Siemens Bosch Porsche Prada Klein Chanel Metro Tao Geo Ibn Lien Owe Merry Mentor
Greet Miracle Champ Cicero Grover Zeno Hall Grove Phoenix Rico York Moon Gentry More Excel Wolfram Council
Muslim Jesus Roman Mars Rails Orrin Lincoln Washington Wright West North South East Hill Cyprus Turkey
Panama Guinea Chile Congo
"""


def names(part: str) -> set[str]:
    """Return the ``first`` or the ``last`` names of all of Faker's languages, as they are written in a
    sentence, and without accents."""
    people = import_module("faker.providers.person")
    found: set[str] = set()
    for module in iter_modules(people.__path__):
        provider = import_module(f"{people.__name__}.{module.name}").Provider
        lists = [getattr(provider, name) for name in dir(provider) if part in name]
        found.update(str(name) for names in lists if isinstance(names, Iterable) for name in names)
    found |= {"".join(c for c in normalize("NFD", name) if not combining(c)) for name in found}
    return {name for name in found if NAME.fullmatch(name) and name == name.capitalize() != name.lower()}


def words(texts: list[str]) -> set[str]:
    """Return, capitalised, the words that are written small at least half as often as capitalised."""
    small, large = Counter[str](), Counter[str]()
    for text in texts:
        small.update(re.findall(r"(?<![\w@./-])[a-z]{3,}(?![\w@])", text))
        large.update(re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b", text))
    return {word.title() for word, times in small.items() if times >= max(2, large[word.title()] / 2)}


if __name__ == "__main__":
    texts = [Path(name).read_text(encoding="utf-8", errors="ignore") for name in sys.argv[1:]]
    english = import_module("english_words").get_english_words_set(["web2", "gcide"])
    dictionary = {word.title() for word in english if word.islower()}
    common = words(texts) | {*NEVER.split()}
    for file, part in (("given_names", "first"), ("family_names", "last")):
        found = sorted(names(part) - common - (dictionary if part == "last" else set[str]()))
        lines = (" ".join(group) for _, group in groupby(found, key=lambda name: name[0]))
        (OUT / f"{file}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
