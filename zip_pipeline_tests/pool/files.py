"""Writes records in every kind of file and compression."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
import zstandard

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest.ingest import ingest, write_batch
from zip_pipeline.ingest.options import ReadOptions

BROKEN_FILE = Path("/proc/self/mem")
"""A regular file that can be opened but not read, as one on a broken disk; Linux has it."""
needs_broken_file = pytest.mark.skipif(not BROKEN_FILE.exists(), reason="no file fails to be read")

COMPRESSIONS = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


def json_lines(records: Sequence[object]) -> bytes:
    """Return records one per line; bytes are written as they are."""
    lines = (r if isinstance(r, bytes) else json.dumps(r).encode() for r in records)
    return b"".join(line + b"\n" for line in lines)


def json_list(records: Sequence[object]) -> bytes:
    """Return records as an indented JSON list; bytes are written as they are."""
    items = [r if isinstance(r, bytes) else json.dumps(r, indent=1).encode() for r in records]
    return b"[\n" + b",\n".join(items) + b"\n]\n"


def json_envelope(records: Sequence[object]) -> bytes:
    """Return records as the list ``data`` of an object."""
    return b'{"version": [1, {"a": 2}], "data": ' + json_list(records) + b', "end": [3]}'


def csv_table(records: Sequence[dict], separator: str = ",") -> bytes:
    """Return records as CSV; lists become JSON text."""
    text = io.StringIO()
    names = list(records[0])
    writer = csv.DictWriter(text, names, delimiter=separator, lineterminator="\r\n")
    writer.writeheader()
    for record in records:
        cells = {k: json.dumps(v) if isinstance(v, list) else v for k, v in record.items()}
        writer.writerow(cells)
    return text.getvalue().encode()


def tab_table(records: Sequence[dict]) -> bytes:
    """Return records as text with a tab between cells."""
    return csv_table(records, "\t")


def arrow_stream(records: Sequence[dict]) -> bytes:
    """Return records as an Arrow stream."""
    buffer = io.BytesIO()
    pl.DataFrame(list(records)).write_ipc_stream(buffer)
    return buffer.getvalue()


def arrow_file(records: Sequence[dict]) -> bytes:
    """Return records as an Arrow file."""
    buffer = io.BytesIO()
    pl.DataFrame(list(records)).write_ipc(buffer)
    return buffer.getvalue()


def parquet_table(records: Sequence[dict], row_group_size: int | None = None) -> bytes:
    """Return records as Parquet."""
    buffer = io.BytesIO()
    pl.DataFrame(list(records)).write_parquet(buffer, row_group_size=row_group_size)
    return buffer.getvalue()


KINDS = {
    "lines.jsonl": json_lines,
    "lines.ndjson": json_lines,
    "list.json": json_list,
    "envelope.json": json_envelope,
    "objects.json": json_lines,
    "table.csv": csv_table,
    "table.tsv": tab_table,
    "table.parquet": parquet_table,
    "table.arrow": arrow_stream,
    "table.feather": arrow_file,
}


def write(path: Path, content: bytes) -> Path:
    """Write the content, compressed as the name says."""
    compress = COMPRESSIONS.get(path.suffix, bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(content))
    return path


def drop_sums(root: DataRoot, source: str, numbers: range) -> None:
    """Ingest a batch of one source whose samples are sums of those numbers."""
    rows = [{"question": f"{n} + 1", "answer": str(n + 1)} for n in numbers]
    path = write(root["sft"].raw / f"{source}.jsonl", json_lines(rows))
    batch = f"{source}.jsonl"
    options = ReadOptions(source=source)
    write_batch(root["sft"], batch, ingest(path, "sft", batch=batch, options=options))
