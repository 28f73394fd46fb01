"""What a version must say about itself to be reproduced bit for bit."""

import json
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version

import polars as pl

from zip_pipeline.compression.codecs import (
    CODECS,
    DEFAULT_LEVELS,
    codec_versions,
    compression_ratio,
    streamed_bytes,
)
from zip_pipeline.compression.text_file import TextFile
from zip_pipeline.compression.zstd_set import MAX_WINDOW_BYTES
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.storage import fingerprint

# xz reads about 2 MB a second: too slow for a whole pool.
_POOL_CODECS = ("deflate", "zstd")
COUNTS = ("num_rows_read", "num_quarantined", "num_duplicates", "num_held_out")


def library_versions() -> dict[str, str]:
    """Return the versions of everything that the picks and files depend on."""
    packages = {name: version(name) for name in ("zip-pipeline", "polars", "numpy")}
    return {"python": platform.python_version(), **packages, **codec_versions()}


def measure_ratios(subset: Sequence[bytes], pool: TextFile) -> dict[str, dict[str, float]]:
    """Return R of subset and pool by codec, at the codec's default level."""
    joined = b"".join(subset)
    num_bytes = int(pool.offsets[-1])
    with ThreadPoolExecutor() as executor:
        of_subset = {c: executor.submit(compression_ratio, joined, c) for c in CODECS}
        of_pool = {
            c: executor.submit(streamed_bytes, pool.chunks(), num_bytes, c) for c in _POOL_CODECS
        }
        return {
            "compression_ratio": {c: ratio.result() for c, ratio in of_subset.items()},
            "pool_compression_ratio": {c: num_bytes / size.result() for c, size in of_pool.items()},
        }


def fingerprint_of_inputs(inputs: Mapping[str, str]) -> str:
    """Return a hash of all input batches and their fingerprints."""
    return fingerprint([json.dumps(dict(sorted(inputs.items())))])


def build_manifest(
    stage: str,
    config: SelectionConfig,
    ledger: pl.DataFrame,
    *,
    tokenizer: str,
    inputs: Mapping[str, str],
    counts: Mapping[str, int],
    num_rounds: int,
    used: int,
) -> dict[str, object]:
    """Return the manifest without the figures that cost time (ratios, seconds).

    Args:
        stage: ``sft`` or ``preference``.
        config: what was asked.
        ledger: the fate of every sample.
        tokenizer: which tokenizer counted tokens.
        inputs: fingerprint of each input by name.
        counts: :data:`COUNTS` of the inputs; what is left out is 0.
        num_rounds: rounds played.
        used: what was used of the budget, in its unit.
    """
    picked = ledger.filter(pl.col("fate") == "picked")
    in_pool = ledger.filter(~pl.col("fate").is_in(["duplicate", "held_out"]))
    return {
        "stage": stage,
        "strategy": config.strategy,
        "config": config.as_dict(),
        "config_fingerprint": config.fingerprint(),
        "seed": config.seed,
        "tokenizer": tokenizer,
        **{name: counts.get(name, 0) for name in COUNTS},
        "num_samples": len(in_pool),
        "num_picked": len(picked),
        "picked_bytes": int(picked["num_bytes"].sum()),
        "picked_tokens": int(picked["num_tokens"].sum()),
        "pool_bytes": int(in_pool["num_bytes"].sum()),
        "budget": {"unit": config.unit, "value": config.budget},
        "unused_budget": max(0, config.budget - used),
        "quotas": _quota_report(config, picked),
        "num_rounds": num_rounds,
        "sharding": _sharding(config),
        "fates": dict(ledger["fate"].value_counts().sort("fate").iter_rows()),
        "top_sources": _top_sources(picked),
        "inputs": dict(sorted(inputs.items())),
        "pool_fingerprint": fingerprint_of_inputs(inputs),
        "subset_fingerprint": fingerprint(picked.sort("rank")["sample_id"].to_list()),
        "ratio_levels": {codec: DEFAULT_LEVELS[codec] for codec in CODECS},
        "max_window_bytes": MAX_WINDOW_BYTES,
        "versions": library_versions(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _sharding(config: SelectionConfig) -> dict[str, int] | None:
    """Return what each shard was to pick, None without shards; rounds are then the merge's."""
    if config.num_shards == 1 or config.strategy == "random":
        return None
    return {"num_shards": config.num_shards, "shard_budget": config.for_a_shard().budget}


def _quota_report(config: SelectionConfig, picked: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Return what each source with a quota was promised, allowed and used, in budget units."""
    cost = pl.len() if config.unit == "samples" else pl.col(f"num_{config.unit}").sum()
    used = dict(picked.group_by("source").agg(cost).iter_rows())
    return {
        source: {
            "minimum": int((least or 0) * config.budget),
            "maximum": config.budget if largest is None else int(largest * config.budget),
            "used": int(used.get(source, 0)),
        }
        for source, (least, largest) in sorted(config.quotas.items())
    }


def _top_sources(picked: pl.DataFrame, limit: int = 10) -> list[dict[str, object]]:
    grouped = picked.group_by("source").agg(
        num_samples=pl.len(), num_bytes=pl.col("num_bytes").sum()
    )
    return grouped.sort(["num_bytes", "source"], descending=[True, False]).head(limit).to_dicts()
