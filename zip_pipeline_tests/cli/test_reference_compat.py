"""``zip-pipeline select --reference-compat``: every row as it comes."""

import gzip
import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline_tests.cli.commands import call_well
from zip_pipeline_tests.cli.pools import read_jsonl, sft_records, write_jsonl

_OPTIONS = ("--reference-compat", "--k1", "60", "--k2", "20", "--k3", "10")


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_reference_compat_takes_every_row_and_overshoots(tmp_path: Path, suffix: str):
    """No row is quarantined or merged, and the budget is overshot to a multiple of k3."""
    records = [*sft_records(80), sft_records(1)[0], {"no": "sample"}]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    out = tmp_path / f"out.{suffix}"
    call_well("select", source, "-o", out, "--budget-samples", "15", *_OPTIONS)
    ledger = pl.read_parquet(tmp_path / "out.ledger.parquet")
    manifest = json.loads((tmp_path / "out.manifest.json").read_text())
    assert ledger.height == manifest["num_samples"] == manifest["num_rows_read"] == 82
    assert (manifest["num_quarantined"], manifest["num_duplicates"]) == (0, 0)
    assert manifest["num_picked"] == 20
    rows = ledger.filter(fate="picked").sort("rank")["source_row"]
    if suffix == "parquet":
        found = [json.loads(raw) for raw in pl.read_parquet(out)["raw"]]
    else:
        found = json.loads(out.read_text()) if suffix == "json" else read_jsonl(out)
    assert found == [records[row - 1] for row in rows]


def test_reference_compat_names_sources_and_inputs(tmp_path: Path):
    """The ledger has the record's own source, else the file's name."""
    own = write_jsonl(tmp_path / "a.jsonl", sft_records(4))
    bare = write_jsonl(tmp_path / "bare.jsonl", [{"text": f"row {n}"} for n in range(4)])
    out = tmp_path / "out.json"
    call_well("select", own, bare, "-o", out, "--budget-samples", "5", *_OPTIONS)
    ledger = pl.read_parquet(tmp_path / "out.ledger.parquet")
    assert ledger["source"].to_list() == ["even", "odd", "even", "odd", *["bare"] * 4]
    assert ledger["sample_id"].n_unique() == 8
    inputs = json.loads((tmp_path / "out.manifest.json").read_text())["inputs"]
    assert list(inputs) == ["a.jsonl", "bare.jsonl"]


def test_reference_compat_picks_what_the_published_code_picked(tmp_path: Path, shared_folder: Path):
    """The picks equal those of the published implementation, in the same order."""
    vectors = shared_folder / "vectors"
    wanted = json.loads((vectors / "small.picks.json").read_text())
    source = tmp_path / "pool.json"
    with gzip.open(vectors / "small.pool.json.gz") as packed, source.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    rounds = [text for k in ("k1", "k2", "k3") for text in (f"--{k}", str(wanted[k]))]
    out = tmp_path / "out.json"
    budget = ("--budget-samples", str(len(wanted["picks"])))
    call_well("select", source, "-o", out, "--reference-compat", *rounds, *budget)
    assert [record["id"] for record in json.loads(out.read_text())] == wanted["picks"]
