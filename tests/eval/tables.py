"""What a report shows: the tables of its console text and of its page, and the bars of its figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser

Row = list[str]


def shown(value: float, *, sign: bool = False) -> str:
    """A figure as a report prints it: four digits, no 0 before the point."""
    text = f"{value:+.4f}" if sign else f"{value:.4f}"
    return re.sub(r"^([+-]?)0\.", r"\1.", text)


def shown_interval(triple: list[float], *, sign: bool = False) -> str:
    """'.1234 [.1200, .1260]'."""
    value, low, high = (shown(one, sign=sign) for one in triple)
    return f"{value} [{low}, {high}]"


def console_table(text: str, title: str) -> tuple[Row, list[Row]]:
    """Head and rows of the table under the line `title`; cells are cut at the dashes, the first cell of the head is ''."""
    lines = text.split("\n")
    start = lines.index(title) + 1
    dashes = lines[start + 1]
    edges = [match.span() for match in re.finditer("-+", dashes)]
    rows = []
    for line in [lines[start], *lines[start + 2 :]]:
        if (
            len(line) < edges[1][1]
            or not line[edges[1][0] : edges[1][1]].strip()
            or line[edges[0][1] : edges[1][0]] != "  "
        ):
            break
        rows.append([line[a:b].strip() for a, b in edges])
    return rows[0], rows[1:]


class Page(HTMLParser):
    """`tables`: rows of cells as (text, title); `paragraphs` and `figures` (caption, SVG) as texts, `hits`: marked titles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[str, str]]]] = []
        self.paragraphs: list[str] = []
        self.hits: list[str] = []
        self._title, self._text = "", ""
        self.figures = dict(re.findall(r"<figcaption>(.*?)</figcaption>(<svg.*?</svg>)", page, re.DOTALL))
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._title = dict(attrs).get("title") or ""
        if tag in ("td", "th", "p") or (tag, ("class", "hit")) in [(tag, one) for one in attrs]:
            self._text = ""
        self._hit = ("class", "hit") in attrs

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        text = " ".join(self._text.split())
        if tag in ("td", "th"):
            self.tables[-1][-1].append((text, self._title))
        elif tag == "p":
            self.paragraphs.append(text)
        elif tag == "span" and self._hit:
            self.hits.append(text)

    def cells(self, table: int) -> list[Row]:
        """The texts of a table, head first."""
        return [[text for text, _ in row] for row in self.tables[table]]


def bars(svg: str) -> dict[str, list[float]]:
    """Heights of the bars of each colour, from left to right, as shares of the highest bar."""
    found: dict[str, list[float]] = {}
    for path, colour in re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="fill: (#\w+)"/>', svg):
        heights = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", path)]
        found.setdefault(colour, []).append(max(heights) - min(heights))
    top = max(height for heights in found.values() for height in heights)
    return {colour: [height / top for height in heights] for colour, heights in found.items()}
