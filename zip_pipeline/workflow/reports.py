"""A version to its report: a page, a data card and its description for programs."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from zip_pipeline.compression.codecs import compression_ratio, pool_levels
from zip_pipeline.data_root import DataRoot, StageFolder
from zip_pipeline.entropy_law.table import SCHEMA, read_versions
from zip_pipeline.files import scan_table, write_atomically, write_json
from zip_pipeline.report.card import croissant, data_card
from zip_pipeline.report.fates import diff_versions, explain_fate
from zip_pipeline.report.page import PastVersion, Report, headline, random_pick, render_page
from zip_pipeline.report.trace import readable_texts, sample_texts
from zip_pipeline.samples import Stage, serialised_texts
from zip_pipeline.workflow.models import training_record
from zip_pipeline.workflow.verdicts import R_CODEC, measured_loss
from zip_pipeline.workflow.versions import StoredVersion, latest_version, read_version

# So many reasons of samples in versions are in a page, those of the latest versions; each is about
# thirty bytes.
_MOST_TOLD = 100_000


@dataclass(frozen=True)
class WrittenReport:
    """What was written of a version: ``page`` for people, ``card`` and ``croissant`` for hubs."""

    stage: Stage
    version: int
    page: Path
    card: Path
    croissant: Path
    verdict: str


def write_report(
    root: DataRoot,
    stage: Stage,
    number: int | None = None,
    *,
    folder: Path | None = None,
    log: Callable[[str], object] = lambda _: None,
) -> WrittenReport:
    """Write the report of a version: as it is now, in place of an older one.

    Args:
        root: the data root.
        stage: of the version.
        number: of the version; None for the latest.
        folder: where to; None for ``reports/<stage>`` of the data root.
        log: told what takes some seconds.

    Raises:
        UserError: there is no such version.
        ModuleNotFoundError: the libraries of the extra ``dagster`` are not installed.
    """
    store = root[stage]
    version = latest_version(store) if number is None else read_version(store, number)
    folder = (folder or store.reports).resolve()
    report = read_report(root, version, log)
    page, beside = folder / f"{version.path.name}.html", folder / version.path.name
    log(f"writing the page with {report.ledger.height:,} rows of the ledger")
    html = render_page(report)
    write_atomically(page, lambda path: path.write_text(html, encoding="utf-8"))
    subset = version.path / "subset.parquet"
    place = Path(os.path.relpath(subset.resolve(), beside)).as_posix()
    card = data_card(report, place)
    write_atomically(beside / "README.md", lambda path: path.write_text(card, encoding="utf-8"))
    write_json(beside / "croissant.json", croissant(report, place, subset))
    told = headline(report)
    verdict = f"{told.words} {told.why}".strip()
    return WrittenReport(
        stage, version.number, page, beside / "README.md", beside / "croissant.json", verdict
    )


PAGES_KEPT = 30


def remove_old_pages(store: StageFolder, num_kept: int = PAGES_KEPT) -> None:
    """Remove the pages of all stored versions but the latest ones; each can be written anew.

    A page has every sample of its pool, so one a night takes far more than what it is made of.
    """
    for number in store.versions.numbers()[:-num_kept]:
        (store.reports / f"{store.versions.path(number).name}.html").unlink(missing_ok=True)


def read_report(
    root: DataRoot, version: StoredVersion, log: Callable[[str], object] = lambda _: None
) -> Report:
    """Return all that a report tells of a version, from what is stored."""
    store, number = root[version.stage], version.number
    numbers = store.versions.numbers()
    before = [n for n in numbers if n < number]
    others = [n for n in numbers if n != number]
    told = others[max(0, len(others) - _MOST_TOLD // max(1, version.ledger.height)) :]
    log(f"reading the texts of {version.ledger.height:,} samples, and {len(numbers)} ledgers")
    return Report(
        stage=version.stage,
        number=number,
        manifest=version.manifest,
        ledger=version.ledger,
        law=_measures(root, store, [*before, number]),
        past=[_past(store, n, is_told=n in told) for n in numbers],
        change=diff_versions(store.versions, before[-1], number) if before else None,
        texts=_texts(store, version),
        random_ratios=_random_ratios(store, version),
        languages=_languages(store),
        rejected=_rejected(store, version.manifest),
        costs=dict(_costs(store, version)),
    )


def _measures(root: DataRoot, store: StageFolder, numbers: list[int]) -> pl.DataFrame:
    """Return the table of versions with a row for each number; those not probed have R alone."""
    known = read_versions(root).filter(
        pl.col("stage") == store.stage, pl.col("version").is_in(numbers)
    )
    manifests = {n: store.versions.manifest(n) for n in numbers if n not in set(known["version"])}
    return pl.concat([known, *(_unprobed(n, found) for n, found in manifests.items())]).sort(
        "version"
    )


def _unprobed(number: int, manifest: dict[str, Any]) -> pl.DataFrame:
    row = {
        "stage": manifest["stage"],
        "version": number,
        "created_at": datetime.fromisoformat(manifest["created_at"]),
        "strategy": manifest["config"]["strategy"],
        "R": manifest["compression_ratio"].get(R_CODEC),
        "num_tokens": manifest.get("picked_tokens"),
    }
    return pl.DataFrame([row], schema=SCHEMA)


def _past(store: StageFolder, number: int, *, is_told: bool) -> PastVersion:
    manifest = store.versions.manifest(number)
    rows = store.versions.ledger(number).filter(pl.col("fate") != "duplicate")
    columns = pl.all() if is_told else pl.col("sample_id", "fate")
    samples = rows.select(columns).collect().unique("sample_id", keep="any")
    words = [
        explain_fate(row, manifest) if is_told else None for row in samples.iter_rows(named=True)
    ]
    fates = samples.select("sample_id", "fate", why=pl.Series(words, dtype=pl.String))
    return PastVersion(number, str(manifest.get("created_at", "")), fates)


def _rejected(store: StageFolder, manifest: dict[str, Any]) -> pl.DataFrame:
    """Return the rejected rows of a version's batches as they are now, by batch and reason."""
    tables = [
        store.scan(store.quarantine(batch)).select(
            "reason",
            batch=pl.lit(batch),
            example=pl.format("{}:{} {}", "source_file", "source_row", "detail"),
        )
        for batch in store.batches()
        if batch in manifest["inputs"]
    ]
    empty = pl.LazyFrame(schema=dict.fromkeys(("reason", "batch", "example"), pl.String))
    rows = pl.concat([empty, *tables]).group_by("batch", "reason", maintain_order=True)
    found = rows.agg(pl.len().alias("rows"), pl.col("example").first())
    return found.sort("rows", "batch", "reason", descending=[True, False, False]).collect()


def _texts(store: StageFolder, version: StoredVersion) -> pl.DataFrame:
    """Return the texts that may be shown: picks as they are trained on, no personal data."""
    subset, ledger = version.subset, version.ledger
    picked = subset.select("sample_id", text=readable_texts(version.stage, subset))
    others = ledger.filter(~pl.col("fate").is_in(["picked", "personal_data", "duplicate"]))
    if "personal_data" in (version.manifest.get("marked") or {}).get("by", {}):
        # Of those that are kept for evaluation nothing is stored.
        others = others.filter(pl.col("fate") != "held_out")
        others = others.join(_with_personal_data(store), on="sample_id", how="anti")
    found = sample_texts(store, others["sample_id"])
    return pl.concat([picked, found.join(picked, on="sample_id", how="anti")])


def _with_personal_data(store: StageFolder) -> pl.DataFrame:
    """Return ``sample_id`` of what the signal found any in: the picks alone are masked."""
    parts = [pl.DataFrame(schema={"sample_id": pl.String})]
    for batch, told in _told(store, "personal_data", "spans"):
        ids = store.scan(store.samples(batch)).select("sample_id").collect()
        parts.append(ids.filter(told.list.len() > 0))
    return pl.concat(parts)


def _told(store: StageFolder, signal: str, column: str) -> Iterator[tuple[str, pl.Series]]:
    """Yield what a signal tells of the samples of each batch as it is now, if it is measured."""
    for batch in store.batches():
        path = store.signal(signal, batch)
        current = store.metadata(store.samples(batch)).get("fingerprint")
        if path.exists() and store.metadata(path).get("pool_fingerprint") == current:
            yield batch, scan_table(path).select(column).collect()[column]


def _random_ratios(store: StageFolder, version: StoredVersion) -> dict[str, float]:
    """Return R of a random pick by the codecs of every pool and that of the selection."""
    manifest = version.manifest
    budget = manifest["budget"]
    used = budget["value"] - manifest["unused_budget"]
    ids = random_pick(version.ledger, budget["unit"], used)
    found = sample_texts(store, ids, lambda stage, rows: serialised_texts(rows, stage))
    if not len(ids) or found.height != len(ids) or set(ids) == set(version.subset["sample_id"]):
        return {}
    texts = ids.to_frame().join(found, on="sample_id", maintain_order="left")["text"]
    joined = "".join(texts).encode("utf-8")
    names = dict.fromkeys([*pool_levels(), manifest["config"]["codec"]])
    return {name: compression_ratio(joined, name) for name in names}


def _languages(store: StageFolder) -> pl.DataFrame | None:
    """Return the language of each sample of the batches whose signal is measured, if any is."""
    parts = []
    for batch, told in _told(store, "language", "language"):
        ids = store.scan(store.samples(batch)).select("sample_id").collect()
        parts.append(ids.with_columns(told))
    return pl.concat(parts).unique("sample_id", keep="first") if parts else None


def _costs(store: StageFolder, version: StoredVersion) -> Iterator[tuple[str, str]]:
    for name, seconds in version.manifest.get("seconds", {}).items():
        yield f"selection: {name}", f"{seconds:,.1f} s"
    loss = measured_loss(store, version.number)
    if loss and "seconds" in loss:
        yield "probe", f"{loss['seconds']:,.1f} s over {loss['num_tokens']:,} tokens"
    record = training_record(store, version.number)
    if record and "seconds" in record:
        yield "training", f"{record['seconds']:,.1f} s, {record['num_steps']:,} steps"
    tokens, targets = (version.manifest.get(f"picked_{n}tokens") for n in ("", "target_"))
    yield "to train on once", f"{tokens:,} tokens" + (f", {targets:,} targets" if targets else "")
