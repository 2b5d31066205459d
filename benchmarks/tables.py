"""Tables of results, as text for the terminal and as Markdown for ``docs/performance.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""One line of a result: a value for each column. A ratio is a mapping with ``median``, ``least`` and ``largest``."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: the name of the value in a row.
        head: the column's title.
        form: the format of a number.
    """

    key: str
    head: str
    form: str = ",.0f"

    def cell(self, row: Row) -> str:
        """Return the value of a row as text; ``-`` if it has none."""
        value = row.get(self.key)
        if value is None:
            return "-"
        if isinstance(value, str):
            return value
        if isinstance(value, Mapping):
            return "{median:{form}} ({least:{form}} … {largest:{form}})".format(**value, form=self.form)
        return format(value, self.form)


def as_text(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return a table for the terminal: the first column is aligned to the left, the others to the right."""
    cells = [[column.head for column in columns], *([column.cell(row) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def lines() -> Iterator[str]:
        for first, *others in cells:
            rest = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
            yield "  ".join((first.ljust(widths[0]), *rest)).rstrip()

    return "\n".join(lines())


def as_markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return the same as a table in Markdown."""
    is_text = [any(isinstance(row.get(column.key), str) for row in rows) for column in columns]
    lines = [
        [column.head for column in columns],
        ["---" if text else "---:" for text in is_text],
        *([column.cell(row) for column in columns] for row in rows),
    ]
    head, rule, *body = lines
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|" + "|".join(rule) + "|", *("| " + " | ".join(row) + " |" for row in body)]
    )
