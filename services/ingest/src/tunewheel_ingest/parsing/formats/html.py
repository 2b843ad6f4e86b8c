"""Reads HTML as Markdown: the text that a person reads, without scripts, decoration and navigation."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from tunewheel_ingest.normalising import normalise
from tunewheel_ingest.parsing.document import ParsedDocument, Parser, Unreadable, refusing_damage
from tunewheel_ingest.parsing.formats.confluence import is_confluence, settle_macros, without_cdata
from tunewheel_ingest.parsing.markdown import sections_of, title_of

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

LONGEST_REPEATED = 200
"""A merged cell of at most so many characters is repeated in each row that it spans. A longer one is blank in
the rows after its first."""
MOST_COLUMNS = 1_000
"""The most columns that one cell may span, as in HTML 5 (§4.9.11)."""
MOST_SPANNED = 10_000
"""The most cells that ``rowspan`` and ``colspan`` may add to one document. A page of 40 kB can ask for
millions."""
_OF_TABLES = ("table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption")
DROPPED = (
    "script", "style", "noscript", "template", "nav", "aside", "iframe", "frame", "object", "embed",
    "applet", "svg", "canvas", "audio", "video", "head", "button", "input", "select", "textarea", "dialog",
)  # fmt: skip
PERMALINKS = frozenset({"", "#", "\u00a7", "\u00b6", "\U0001f517"})
"""The texts of permalinks, which documentation generators add to headings."""
RUNNING_SCHEMES = ("javascript:", "vbscript:", "data:")
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
BLOCKS = {"details": "div", "center": "div", "fieldset": "div", "summary": "p", "legend": "p"}
"""Block elements that markdownify treats as inline, and the elements that replace them."""
_MARKUP = re.compile(
    r"\s*<(?:!doctype html|html|head|body|meta|style|div|p|span|table|br|font|ul|ol|h[1-6])\b", re.IGNORECASE
)
_POWER = re.compile(r"[+\u2212-]?\d{1,9}")


def parse_html(html: str | bytes) -> ParsedDocument:
    """Return a page's main part as Markdown. Headings, lists, tables and code are kept.

    Bytes are decoded as in HTML 5: by byte-order mark, then ``<meta charset>``, then by detection.

    Raises:
        Unreadable: the page is damaged, or nested too deeply.
    """
    from bs4 import BeautifulSoup

    with refusing_damage("HTML page", "simplify or mend its markup"):
        is_wiki = is_confluence(html)
        soup = BeautifulSoup(without_cdata(html) if is_wiki else html, "html.parser")
        if is_wiki:
            settle_macros(soup)
        named = normalise(soup.title.get_text(" ", strip=True)) if soup.title else ""
        _clean(soup)
        markdown = to_markdown(_main_part(soup))
    return ParsedDocument(
        markdown=markdown, sections=sections_of(markdown), title=title_of(markdown) or " ".join(named.split())
    )


def is_html(text: str) -> bool:
    """Return whether ``text`` begins and ends with HTML markup, as the body of an HTML mail does."""
    return _MARKUP.match(text) is not None and text.rstrip().endswith(">")


def parse_mail(html: str) -> str:
    """Return the body of an HTML mail as Markdown. Pictures without a description are left out: they are
    logos and counters.

    Raises:
        Unreadable: the body is damaged, or nested too deeply.
    """
    from bs4 import BeautifulSoup

    with refusing_damage("HTML", "simplify or mend its markup, or send the text with media_type text/plain"):
        soup = BeautifulSoup(html, "html.parser")
        _clean(soup)
        for picture in soup.find_all("img", alt=lambda alt: not alt):
            picture.decompose()
        return to_markdown(soup)


def to_markdown(tree: Tag) -> str:
    """Return a tree as Markdown, and change the tree. Text is not escaped: a model reads it, no renderer."""
    from markdownify import MarkdownConverter

    settle_tables(tree)
    for tag in tree.find_all(list(BLOCKS)):
        tag.name = BLOCKS[tag.name]
    for tag in tree.find_all("sup"):
        if _POWER.fullmatch(tag.get_text(strip=True)):  # else 10 to the 6th becomes 106
            tag.insert(0, "^")
    converter = MarkdownConverter(
        heading_style="atx",
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        table_infer_header=True,
        code_language_callback=_language,
    )
    return normalise(converter.convert_soup(tree))


def _clean(soup: BeautifulSoup) -> None:
    from bs4 import Comment, Declaration, Doctype, ProcessingInstruction

    for tag in soup.find_all(DROPPED):
        tag.decompose()
    for tag in soup.find_all("form"):
        if tag.find(HEADINGS) is None:
            tag.decompose()
        else:  # ASP.NET wraps the whole page in a form
            tag.unwrap()
    for tag in soup.find_all(_is_hidden):
        tag.decompose()
    for note in soup.find_all(string=lambda s: isinstance(s, Comment | Declaration | Doctype)):
        note.extract()
    for note in soup.find_all(string=lambda s: isinstance(s, ProcessingInstruction)):
        note.extract()
    for tag in soup.find_all("time", datetime=True):
        tag.string = tag.get_text(strip=True) or str(tag["datetime"])  # Confluence's dates have no text.
    for tag in soup.find_all("a", href=lambda href: href is not None and href.startswith("#")):
        if tag.get_text(strip=True) in PERMALINKS:
            tag.decompose()
        else:  # the link stays within the page
            tag.unwrap()
    for tag in soup.find_all(["a", "img"]):
        target = str(tag.get("href") or tag.get("src") or "").strip().lower()
        if target.startswith(RUNNING_SCHEMES):
            tag.replace_with(str(tag.get("alt") or "")) if tag.name == "img" else tag.unwrap()


def _is_hidden(tag: Tag) -> bool:
    return (
        tag.has_attr("hidden")
        or tag.get("aria-hidden") == "true"
        or tag.get("role") in ("navigation", "search", "banner", "contentinfo")
    )


def _main_part(soup: BeautifulSoup) -> Any:
    """Return ``<main>``, else the only ``<article>``, else the body without the page's header and footer."""
    main = soup.find("main") or soup.find(role="main")
    if main is not None and main.get_text(strip=True):
        return main
    articles = soup.find_all("article")
    if len(articles) == 1:
        return articles[0]
    root = soup.body or soup
    for tag in root.find_all(["header", "footer"], recursive=False):
        tag.decompose()
    return root


def _language(pre: Tag) -> str:
    """Return the language that a highlighter names in the class of ``<pre>`` or of its ``<code>``."""
    inner = pre.find("code")
    for tag in (pre, inner):
        for name in (tag.get_attribute_list("class") if tag else ()) or ():
            for prefix in ("language-", "lang-", "highlight-source-"):
                if name and name.startswith(prefix):
                    return str(name.removeprefix(prefix))
    return ""


def settle_tables(soup: BeautifulSoup | Tag) -> None:
    """Change the tables below ``soup`` in place into what Markdown can express. Most tables of Word and wikis
    have merged cells; without them the other cells of a row would stand below the wrong headers.

    A table around other tables only lays out the page, so it becomes plain blocks. Merged cells are repeated
    once per row. Bars in cells are escaped (GFM §4.10).

    Raises:
        Unreadable: merged cells span over ``MOST_SPANNED`` cells.
    """
    spanned = 0
    parts = [(part, part.find_parent("table")) for part in soup.find_all(_OF_TABLES)]
    around = {id(owner) for part, owner in parts if owner is not None and part.name == "table"}
    for part, owner in parts:
        if id(part) in around or (id(owner) in around and part.name != "table"):
            part.name = "div"
    for table in soup.find_all("table"):
        spanned = _fill(table, spanned)
        for text in table.find_all(string=lambda string: "|" in (string or "")):
            text.replace_with(str(text).replace("|", "\\|"))


def _fill(table: Tag, spanned: int) -> int:
    """Repeat the merged cells of ``table`` and return ``spanned`` plus the number of cells that they add."""
    below: dict[int, tuple[int, Tag]] = {}  # by column: a cell from above, and how many more rows it spans
    rows = table.find_all("tr")
    for left, row in zip(range(len(rows), 0, -1), rows, strict=True):
        column, reaching, below = 0, below, {}
        for cell in [*row.find_all(["td", "th"], recursive=False), None]:
            while column in reaching:
                count, above = reaching.pop(column)
                again, wide = _again(above), _span(above, "colspan", MOST_COLUMNS)
                row.append(again) if cell is None else cell.insert_before(again)
                if count > 1:
                    below[column] = (count - 1, above)
                column, spanned = column + wide, _counted(spanned + wide)
            if cell is None:
                break
            count, wide = _span(cell, "rowspan", left) - 1, _span(cell, "colspan", MOST_COLUMNS)
            if count:
                below[column] = (count, cell)
            column, spanned = column + wide, _counted(spanned + wide - 1)
        # a cell from above that lies beyond the row's last cell, after a gap, continues downwards unchanged
        below |= {place: (count - 1, above) for place, (count, above) in reaching.items() if count > 1}
    return spanned


def _counted(spanned: int) -> int:
    if spanned > MOST_SPANNED:
        raise Unreadable(
            f"has tables whose merged cells span over {MOST_SPANNED} cells; remove rowspan and colspan, or "
            "divide the tables"
        )
    return spanned


def _again(cell: Tag) -> Tag:
    again = copy.copy(cell)
    if len(again.get_text()) > LONGEST_REPEATED:
        again.clear()
    return again


def _span(cell: Tag, name: str, most: int) -> int:
    said = str(cell.get(name, "1"))
    told = int(said) if said.isascii() and said.isdigit() and len(said) < 10 else 1
    return min(most, told or (most if name == "rowspan" else 1))


HTML = Parser("text/html", lambda path, name: parse_html(path.read_bytes()), libraries=("bs4", "markdownify"))
