"""Selections by the command line, as hashes of what they write.

``python -m zip_pipeline_tests.end_to_end.recorded_selections`` makes all of them and says which
are as recorded, five minutes with real pools. With ``record`` it records them anew: only a change
that is meant to change picks, ledgers or manifests calls for that.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

RECORDED = Path(__file__).with_name("recorded_selections.json")
_SFT = ["raw/sft"]
_PAIRS = ["raw/preference", "--stage", "preference"]
_K = ["--k1", "1000", "--k2", "100", "--k3", "50"]
# What each case adds to `zip-pipeline select INPUT -o OUT`.
SAMPLE_POOL = {
    "zip": [*_SFT, "--strategy", "zip", "--budget-tokens", "60000", *_K],
    "zip_zstd": [*_SFT, "--strategy", "zip", "--budget-samples", "300", "--codec", "zstd", *_K],
    "zip_pairs": [*_PAIRS, "--strategy", "zip", "--budget-samples", "150", *_K],
    "long_range": [*_SFT, "--budget-tokens", "100000", "--strategy", "long_range"],
    "long_range_deflate": [
        *_SFT, "--budget-bytes", "200000", "--strategy", "long_range", "--codec", "deflate", *_K,
    ],
    "long_range_pairs": [*_PAIRS, "--budget-tokens", "30000", "--strategy", "long_range"],
    "random": [*_SFT, "--budget-tokens", "60000", "--strategy", "random", "--seed", "3"],
    "quotas": [
        *_SFT, "--budget-samples", "200", "--strategy", "long_range",
        "--quota", "arithmetic=10%:20%",
    ],
    "reference": [
        "raw/sft/02_conversations.json", "--budget-samples", "300", "--reference-compat", *_K,
    ],
    "sharded": [*_SFT, "--budget-tokens", "60000", "--strategy", "long_range", "--shards", "3"],
    "sharded_zip": [*_PAIRS, "--strategy", "zip", "--budget-samples", "90", "--shards", "2", *_K],
}  # fmt: skip
REAL_POOLS = {
    "real_pairs": [
        "preference", "--strategy", "zip", "--stage", "preference", "--budget-tokens", "50000",
    ],
    "real_long_range": ["sft", "--budget-bytes", "3000000", "--strategy", "long_range"],
    "real_reference": [
        "sft/gsm8k_train.jsonl.gz", "--budget-samples", "500", "--reference-compat",
    ],
}  # fmt: skip
# More of what the others show, half a minute and more each, so the script makes them alone.
LONG = {
    "real_random": ["sft", "--budget-tokens", "500000", "--strategy", "random"],
    "real_zip": ["sft", "--strategy", "zip", "--budget-tokens", "100000"],
    "real_sharded": [
        "sft", "--budget-bytes", "2000000", "--strategy", "long_range", "--shards", "4",
    ],
}  # fmt: skip


def write_pool(folder: Path) -> None:
    """Write the sample pool that the cases select from."""
    from zip_pipeline.sample_data import write_sample_data

    write_sample_data(folder, state="x4", scale=0.5)


def hashes_of(arguments: list[str], pool: Path, folder: Path) -> dict[str, str]:
    """Select from a pool, and return the hashes of subset, ledger and manifest."""
    # The cases of the script write one after another into one folder.
    command = [sys.executable, "-m", "zip_pipeline.cli", "select", "--force"]
    command += ["-o", str(folder / "out.jsonl")]
    subprocess.run([*command, *arguments], cwd=pool, check=True, capture_output=True)
    manifest: dict[str, Any] = json.loads((folder / "out.manifest.json").read_text())
    # When and by which Python it was made.
    del manifest["seconds"], manifest["created_at"], manifest["versions"]["python"]
    ledger = pl.read_parquet(folder / "out.ledger.parquet")
    return {
        "subset": _hash((folder / "out.jsonl").read_bytes()),
        "ledger": _hash(ledger.write_csv().encode()),
        "manifest": _hash(json.dumps(manifest, sort_keys=True).encode()),
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def all_hashes(folder: Path) -> dict[str, Any]:
    """Return the hashes of all cases; those of the real pools where these are."""
    from zip_pipeline.compression.codecs import codec_versions

    write_pool(folder)
    found: dict[str, Any] = {"codecs": codec_versions()}
    pools = [(folder, SAMPLE_POOL)]
    shared = Path(os.environ.get("ZIP_SHARED", Path(__file__).parents[3] / "shared"))
    if (shared / "pools").is_dir():
        pools.append((shared / "pools", REAL_POOLS | LONG))
    for pool, cases in pools:
        for name, arguments in cases.items():
            found[name] = hashes_of(arguments, pool, folder)
    return found


def main(arguments: list[str]) -> int:
    """Compare with what is recorded, or record anew; return an exit code."""
    with tempfile.TemporaryDirectory() as temporary:
        found = all_hashes(Path(temporary))
    if arguments == ["record"]:
        RECORDED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        return 0
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    others = [name for name, hashes in found.items() if recorded.get(name) != hashes]
    for name in found:
        print(name, "differs" if name in others else "as recorded")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
