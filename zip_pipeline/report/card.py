"""A version as hubs tell of it: a data card in Markdown, and a Croissant description."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.report.fates import fate_label, num_by_fate, top_sources
from zip_pipeline.report.markdown import Shown, inert, markdown
from zip_pipeline.report.page import Report, headline
from zip_pipeline.samples import Stage
from zip_pipeline.selection.ledger import tokens_of

_PURPOSE: Mapping[Stage, str] = {
    "sft": "conversations for supervised fine-tuning",
    "preference": "preference pairs and rated answers",
}
_NUM_SOURCES = 30
_FORMAT = "application/x-parquet"


def data_card(report: Report, subset: str) -> str:
    """Return the card of a version: Markdown with the metadata that the Hugging Face hub reads.

    Args:
        report: what is known of the version.
        subset: path or address of its subset, as seen from the card.
    """
    # JSON is YAML, and quotes whatever a name may hold.
    front = "".join(f"{name}: {json.dumps(value)}\n" for name, value in _metadata(report, subset))
    parts = [f"---\n{front}---\n", f"# {_title(report)}\n", *_paragraphs(report)]
    return "\n".join(parts)


def _title(report: Report) -> str:
    return f"{report.stage} version {report.number}"


def _metadata(report: Report, subset: str) -> Iterator[tuple[str, object]]:
    yield "pretty_name", _title(report)
    if languages := _languages(report):
        yield "language", languages
    yield "task_categories", ["text-generation"]
    yield "size_categories", [_size_category(report.manifest["num_picked"])]
    yield "tags", ["zip-pipeline", report.stage, str(report.manifest["strategy"])]
    files = [{"split": "train", "path": subset}]
    yield "configs", [{"config_name": "default", "data_files": files}]


def _languages(report: Report) -> list[str]:
    """Return the languages of the picks, most frequent first; code is none."""
    if report.languages is None:
        return []
    picked = report.ledger.filter(fate="picked").join(report.languages, on="sample_id")
    told = picked.filter(pl.col("language") != "code").group_by("language").len()
    return told.sort("len", "language", descending=[True, False])["language"].to_list()


_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def _size_category(num_samples: int) -> str:
    return next((name for most, name in _SIZES.items() if num_samples < most), "1M<n<10M")


def _paragraphs(report: Report) -> Iterator[str]:
    manifest, told = report.manifest, headline(report)
    budget = manifest["budget"]
    unit = budget["unit"].replace("_", " ")
    yield (
        f"{manifest['num_picked']:,} {_PURPOSE[report.stage]}, picked from "
        f"{manifest['num_samples']:,} by the strategy {inert(manifest['strategy'])} within "
        f"{budget['value']:,} {unit}. They have {manifest['picked_tokens']:,} tokens of the "
        f"{tokens_of(manifest)} "
        f"({inert(manifest['tokenizer'])}) and {manifest['picked_bytes']:,} bytes. "
        f"Selected at {manifest['created_at']}.\n"
    )
    yield f"## Verdict\n\n{inert(told.words)} {inert(told.why)}\n"
    yield f"## Redundancy\n\n{markdown([_ratios(report)])}"
    yield "R is raw / compressed bytes of all texts together; lower is less redundant.\n"
    yield f"## Sources\n\n{markdown([_sources(report.ledger)])}"
    fates = [[fate_label(fate), f"{num:,}"] for fate, num in num_by_fate(report.ledger).items()]
    yield f"## What became of the pool\n\n{markdown([(['fate', 'samples'], fates)])}"
    yield (
        "## Limits\n\nThe licence of each source is not recorded here: look it up before you share "
        "the data. Filters for personal data and benchmarks ran only where the configuration below "
        "names their signals.\n"
    )
    config = json.dumps(manifest["config"], ensure_ascii=True, sort_keys=True)
    yield (
        "## How to reproduce\n\nThe same drops and held-out samples, and this configuration, give "
        f"the same picks.\n\n- configuration: {inert(config)}\n"
        f"- pool_fingerprint: `{manifest.get('pool_fingerprint')}`\n"
        f"- subset_fingerprint: `{manifest.get('subset_fingerprint')}`\n"
    )


def _ratios(report: Report) -> Shown:
    pool, random = report.manifest.get("pool_compression_ratio", {}), report.random_ratios
    rows = [
        [codec, f"{ratio:.3f}", *(_number(found.get(codec)) for found in (random, pool))]
        for codec, ratio in report.manifest["compression_ratio"].items()
    ]
    return ["codec", "subset", "random pick of the same budget", "pool"], rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _sources(ledger: pl.DataFrame) -> Shown:
    rows = [
        [str(row["source"]), f"{row['num_picked']:,}", f"{row['subset_share']:.1%}"]
        for row in top_sources(ledger, _NUM_SOURCES).iter_rows(named=True)
        if row["num_picked"]
    ]
    return ["source", "samples", "share"], rows


def croissant(report: Report, subset: str, file: Path) -> dict[str, Any]:
    """Return the description of a version in Croissant 1.0, which programs read.

    Args:
        report: what is known of the version.
        subset: path or address of its subset, as seen from the description.
        file: where the subset lies now; its hash and columns are told.

    Source: Croissant format specification 1.0 of MLCommons.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    told = headline(report)
    schema = pl.read_parquet_schema(file)
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{report.stage}_v{report.number:06d}",
        "description": f"{_title(report)}: {report.manifest['num_picked']:,} "
        f"{_PURPOSE[report.stage]}. {told.words} {told.why}",
        "version": f"{report.number}.0.0",
        "datePublished": report.manifest["created_at"],
        "keywords": ["zip-pipeline", report.stage, str(report.manifest["strategy"])],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "subset",
                "name": "subset",
                "description": "The picks in pick order.",
                "contentUrl": subset,
                "contentSize": f"{file.stat().st_size} B",
                "encodingFormat": _FORMAT,
                "sha256": digest,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "samples",
                "name": "samples",
                "field": [field for name in schema for field in _fields(name, schema[name])],
            }
        ],
    }


_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject",
            "fileProperty", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key",
            "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace",
            "samplingRate", "separator", "source", "subField", "transform",
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}  # fmt: skip
_TYPES: Sequence[tuple[Any, str]] = (
    (pl.String, "sc:Text"),
    (pl.Boolean, "sc:Boolean"),
    (pl.Float64, "sc:Float"),
)


def _fields(name: str, dtype: pl.DataType) -> Iterator[dict[str, Any]]:
    """Yield the field of a column; of turns, a part for each field of a turn."""
    source: dict[str, Any] = {"fileObject": {"@id": "subset"}, "extract": {"column": name}}
    field = {"@type": "cr:Field", "@id": f"samples/{name}", "name": f"samples/{name}"}
    if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
        parts = [
            {
                "@type": "cr:Field",
                "@id": f"samples/{name}/{part.name}",
                "name": f"samples/{name}/{part.name}",
                "dataType": _type(part.dtype),
                "source": source | {"transform": {"jsonPath": part.name}},
            }
            for part in dtype.inner.fields
        ]
        yield field | {"repeated": True, "subField": parts}
    else:
        yield field | {"dataType": _type(dtype), "source": source}


def _type(dtype: Any) -> str:  # noqa: ANN401
    if dtype.is_integer():
        return "sc:Integer"
    return next((name for known, name in _TYPES if dtype == known), "sc:Text")
