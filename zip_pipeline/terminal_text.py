"""Text for terminals: what would move the cursor, ring the bell or turn text round is shown."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

_LINE_AND_PARAGRAPH_SEPARATORS = range(0x2028, 0x202A)
_BIDI_OVERRIDES = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SURROGATES = range(0xD800, 0xE000)
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
_ESCAPES = {
    code: repr(chr(code))[1:-1]
    for code in (*_CONTROLS, *_LINE_AND_PARAGRAPH_SEPARATORS, *_BIDI_OVERRIDES, *_SURROGATES)
}
_ESCAPES_BUT_LAYOUT = {code: words for code, words in _ESCAPES.items() if chr(code) not in "\n\t"}


def shown(text: str) -> str:
    r"""Return text whose control characters are readable, such as ``\x1b``; lines and tabs stay.

    Also what turns the direction of the text around it, and halves of surrogate pairs, which no
    stream can encode.
    """
    return text.translate(_ESCAPES_BUT_LAYOUT)


def shown_in_cell(text: str) -> str:
    r"""Return text for one cell of a table of lines and tabs: these are readable too, as ``\n``."""
    return text.translate(_ESCAPES)


def counted(num: int, noun: str) -> str:
    """Return a number and its noun, as in ``1 batch`` or ``2,000 batches``."""
    ending = "" if num == 1 else "es" if noun.endswith(("ch", "s", "x")) else "s"
    return f"{num:,} {noun}{ending}"


class ShownStream:
    """A text stream that shows control characters instead of sending them.

    Consoles of rich write to ``rich_proxied_file`` instead, since their styling is made of control
    characters; they show those of the data themselves.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        self.rich_proxied_file.write(shown(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)


def show_control_characters() -> None:
    """Let whatever this process prints from now on show control characters, by whom it may be."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, ShownStream):
            setattr(sys, name, ShownStream(stream))
