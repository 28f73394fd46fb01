"""Markdown around words of the data, in which these mean nothing: no link, picture or markup."""

import re
from collections.abc import Sequence
from typing import TypeAlias

from zip_pipeline.terminal_text import shown_in_cell

Shown: TypeAlias = tuple[list[str], list[list[str]]]
"""Header and cells of a table for people."""

# Also what begins or ends an address without any sign of its own, as www. and @ do.
_MEANS_SOMETHING = re.compile(r"[\\`*~\[\]<>&#@]|://|www\.|(?<!\w)_|_(?!\w)", re.IGNORECASE)


def inert(text: str) -> str:
    r"""Return words on one line as Markdown shows them: as they are, or as code where they have to.

    Signs cannot be escaped one by one: renderers look for addresses after they read the escapes. In
    code they look for nothing, and it reads well where no Markdown is rendered too. Control
    characters are readable, as ``\n``.
    """
    line = shown_in_cell(text)
    if not _MEANS_SOMETHING.search(line):
        return line
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def markdown(tables: Sequence[Shown]) -> str:
    """Return tables as Markdown; a bar in a cell becomes a broken one, which ends no cell."""
    return "\n".join(
        "".join(
            f"| {' | '.join(inert(cell.replace('|', '¦')) for cell in line)} |\n"
            for line in (header, ["---"] * len(header), *rows)
        )
        for header, rows in tables
    )


def bullets(lines: Sequence[str]) -> str:
    """Return a list of such words as Markdown."""
    return "".join(f"- {inert(line)}\n" for line in lines)
