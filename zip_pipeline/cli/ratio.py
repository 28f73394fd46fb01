"""``zip-pipeline ratio``: how redundant files are."""

from pathlib import Path
from typing import Annotated

import typer

from zip_pipeline.cli.console import new_table, output
from zip_pipeline.compression.codecs import codecs, compressed_bytes
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.readers import read_rows
from zip_pipeline.ingest.rows import RawRow, RejectionError, read_chunks

Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="Files to measure.")]
Codec = Annotated[
    str,
    typer.Option(metavar="NAME", help=f"What compresses the bytes: {', '.join(codecs.names())}."),
]
Level = Annotated[
    int | None, typer.Option(metavar="N", help="Compression level.", show_default="the codec's own")
]
TextField = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Measure the text of this field over all rows (joined by line feeds), instead of "
        "the bytes of the file; a.b reaches inside.",
        show_default=False,
    ),
]


def ratio(
    files: Files,
    codec: Codec = codecs.default,
    level: Level = None,
    text_field: TextField = None,
) -> None:
    """Print the compression ratio of FILES: raw bytes / compressed bytes.

    Higher means more redundant. What lies in .gz and .zst files is measured decompressed.
    With several files a last line measures them joined.
    """
    pieces = [_content(path, text_field) for path in files]
    table = new_table("file", "raw bytes", "compressed bytes", f"R {codec}")
    for path, content in zip(files, pieces, strict=True):
        table.add_row(str(path), *_measures(content, codec, level))
    if len(files) > 1:
        table.add_row("all together", *_measures(b"".join(pieces), codec, level), style="bold")
    output().print(table)


def _measures(content: bytes, codec: str, level: int | None) -> tuple[str, str, str]:
    num_compressed = compressed_bytes(content, codec, level)
    return f"{len(content):,}", f"{num_compressed:,}", f"{len(content) / num_compressed:.3f}"


def _content(path: Path, text_field: str | None) -> bytes:
    if text_field is not None:
        return "".join(f"{_text(row, text_field)}\n" for row in read_rows(path)).encode()
    if not path.is_file():
        raise UserError(f"{path}: no such file; give files, not folders, or use --text-field")
    try:
        return b"".join(read_chunks(path))
    except RejectionError as why:
        raise UserError(f"{path}: {why.reason} ({why.detail})") from why


def _text(row: RawRow, text_field: str) -> str:
    place = f"{row.source_file}, row {row.source_row}"
    if row.reason is not None:
        raise UserError(f"{place}: {row.reason} ({row.detail}); repair or remove the row")
    value: object = row.record
    for name in text_field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, str):
        fields = ", ".join(row.record) if isinstance(row.record, dict) else "none"
        raise UserError(f"{place}: no text in field {text_field!r}; fields are {fields}")
    return value
