"""What Markdown of ours becomes in a browser."""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

# Renderers make links of these, wherever they stand in words that are no code.
_ADDRESS = re.compile(r"://|www\.|@", re.IGNORECASE)


def _parsed(markdown: str) -> list[Token]:
    parser = MarkdownIt("commonmark").enable("table")
    # It would leave some addresses alone by itself, such as javascript:.
    parser.validateLink = lambda url: True
    return parser.parse(markdown)


def _flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        # What stands in place of a picture is an attribute of it.
        if token.type != "image":
            yield from _flat(token.children or [])


def loads_of(markdown: str) -> list[str]:
    """Return the links, pictures, addresses and HTML of a text; pictures inside it are none."""
    found = []
    for token in _flat(_parsed(markdown)):
        source = str(token.attrs.get("src", ""))
        is_inside = source.startswith(("data:image/png;base64,", "data:image/svg+xml,"))
        is_load = token.type in ("link_open", "image", "html_block", "html_inline")
        is_address = token.type == "text" and _ADDRESS.search(token.content)
        if (is_load and not is_inside) or is_address:
            found.append(f"{token.type}: {source or token.attrs or token.content}")
    return found


def code_of(markdown: str) -> list[str]:
    """Return the words that are shown as code."""
    tokens = _flat(_parsed(markdown))
    return [token.content for token in tokens if token.type == "code_inline"]
