"""What changed between two versions of a subset."""

from dataclasses import dataclass

import polars as pl

from zip_pipeline.data_root import VersionStore
from zip_pipeline.report.fates import NOT_IN_POOL


@dataclass(frozen=True)
class VersionDiff:
    """Samples and sources in, out and stayed between two versions.

    ``samples``: one row per sample picked in either version (sample_id, source, batch,
    source_file, source_row, num_bytes, change, source_before, fate_before, fate_after);
    ``change`` is ``in``, ``out`` or ``stayed``, a fate ``not_in_pool`` where that version's
    pool lacks the sample.
    ``sources``: one row per source (source, change, num_before, num_after, num_in, num_out,
    num_stayed), most moved first. ``batches``: one row per input batch that was added,
    removed or changed (batch, change).
    """

    before: dict[str, object]
    after: dict[str, object]
    samples: pl.DataFrame
    sources: pl.DataFrame
    batches: pl.DataFrame

    def num(self, change: str) -> int:
        """Return how many samples are ``in``, ``out`` or ``stayed``."""
        return self.samples.filter(pl.col("change") == change).height

    def num_bytes(self, change: str) -> int:
        """Return the bytes of the samples that are ``in``, ``out`` or ``stayed``."""
        return int(self.samples.filter(pl.col("change") == change)["num_bytes"].sum())


def diff_versions(store: VersionStore, before: int, after: int) -> VersionDiff:
    """Compare two versions of one stage.

    Args:
        store: the stage's versions.
        before: number of the version to start from.
        after: number of the version to arrive at.

    Returns:
        The difference; a sample is the same sample when its content is, wherever it lies.

    Raises:
        UserError: there is no such version.
    """
    manifests = store.manifest(before), store.manifest(after)
    samples = _samples(_ledger(store, before), _ledger(store, after))
    batches = _batches(_inputs(manifests[0]), _inputs(manifests[1]))
    return VersionDiff(*manifests, samples, _sources(samples), batches)


def _ledger(store: VersionStore, number: int) -> pl.DataFrame:
    ledger = pl.read_parquet(store.path(number) / "ledger.parquet")
    samples = ledger.filter(pl.col("fate") != "duplicate")
    picked_first = samples.sort(pl.col("fate") != "picked", maintain_order=True)
    # Only a pool that was taken as it comes can hold a sample twice.
    return picked_first.unique("sample_id", keep="first", maintain_order=True)


def _samples(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    carried = ["source", "batch", "source_file", "source_row", "num_bytes"]
    columns = ["sample_id", *carried, "fate"]
    both = after.select(columns).join(
        before.select(columns), on="sample_id", how="full", coalesce=True, suffix="_before"
    )
    picked_before, picked_after = pl.col("fate_before") == "picked", pl.col("fate") == "picked"
    change = (
        pl.when(picked_before.fill_null(False) & picked_after.fill_null(False))
        .then(pl.lit("stayed"))
        .when(picked_after.fill_null(False))
        .then(pl.lit("in"))
        .otherwise(pl.lit("out"))
    )
    return (
        both.filter((picked_before | picked_after).fill_null(False))
        .select(
            "sample_id",
            *(pl.coalesce(name, f"{name}_before").alias(name) for name in carried),
            change=change,
            source_before=pl.coalesce("source_before", "source"),
            fate_before=pl.col("fate_before").fill_null(NOT_IN_POOL),
            fate_after=pl.col("fate").fill_null(NOT_IN_POOL),
        )
        .sort("change", "source", "sample_id")
    )


def _sources(samples: pl.DataFrame) -> pl.DataFrame:
    # A sample whose source has another name now has left the one and come to the other.
    before = samples.filter(pl.col("change") != "in").select(source="source_before")
    after = samples.filter(pl.col("change") != "out").select("source")
    same = samples.filter(pl.col("change") == "stayed", pl.col("source") == pl.col("source_before"))
    table = pl.concat([before, after]).unique()
    for name, rows in (("before", before), ("after", after), ("stayed", same.select("source"))):
        counted = rows.group_by("source").agg(pl.len().cast(pl.Int64).alias(f"num_{name}"))
        table = table.join(counted, on="source", how="left")
    table = table.fill_null(0).with_columns(
        num_in=pl.col("num_after") - pl.col("num_stayed"),
        num_out=pl.col("num_before") - pl.col("num_stayed"),
    )
    num_before, num_after = pl.col("num_before"), pl.col("num_after")
    change = (
        pl.when(num_before == 0)
        .then(pl.lit("in"))
        .when(num_after == 0)
        .then(pl.lit("out"))
        .otherwise(pl.lit("stayed"))
    )
    return (
        table.with_columns(change=change)
        .select("source", "change", "num_before", "num_after", "num_in", "num_out", "num_stayed")
        .sort(pl.col("num_in") + pl.col("num_out"), "source", descending=[True, False])
    )


def _inputs(manifest: dict[str, object]) -> dict[str, str]:
    inputs = manifest.get("inputs", {})
    assert isinstance(inputs, dict), inputs
    return {str(batch): str(fingerprint) for batch, fingerprint in inputs.items()}


def _batches(before: dict[str, str], after: dict[str, str]) -> pl.DataFrame:
    rows = [
        (batch, "added" if batch not in before else "removed" if batch not in after else "changed")
        for batch in sorted(before.keys() | after.keys())
        if before.get(batch) != after.get(batch)
    ]
    return pl.DataFrame(rows, schema={"batch": pl.String, "change": pl.String}, orient="row")
