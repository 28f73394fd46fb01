"""The subset and the samples that are kept for evaluation."""

import json
from typing import Any

import polars as pl

from zip_pipeline.pool.held_out import read_held_out
from zip_pipeline_tests.defs.graph import SMALL, Graph, alpaca_rows, error_of, metadata_of

EVERYTHING = {**SMALL, "strategy": "random", "budget_samples": 1000}


def ingest(graph: Graph, name: str, num_rows: int, first: int = 0) -> None:
    """Drop and ingest so many rows."""
    graph.drop("sft", name, alpaca_rows(num_rows, first))
    assert graph.ingest("sft", name).success


def _held_out(graph: Graph) -> set[str]:
    return set(pl.read_parquet(graph.root["sft"].held_out)["sample_id"])


def _manifest(graph: Graph, number: int) -> dict[str, Any]:
    return graph.root["sft"].versions.manifest(number)


def test_no_version_ever_has_a_held_out_sample(graph: Graph) -> None:
    """The first version draws the set; no later one picks from it, whatever was dropped since."""
    ingest(graph, "a.jsonl", 300)
    ingest(graph, "b.jsonl", 199, first=1000)
    first = graph.select("sft", EVERYTHING)
    held_out = _held_out(graph)
    assert len(held_out) == 6
    ingest(graph, "a.jsonl", 280, first=20)
    ingest(graph, "c.jsonl", 250, first=0)
    second = graph.select("sft", EVERYTHING)
    assert _held_out(graph) == held_out
    pools = [pl.read_parquet(p) for p in graph.root["sft"].samples("x").parent.glob("*.parquet")]
    in_pool = set(pl.concat(pools)["sample_id"])
    assert held_out < in_pool
    for number, result, num_rows, num_picked in ((1, first, 499, 493), (2, second, 729, 493)):
        subset = pl.read_parquet(graph.root["sft"].versions.path(number) / "subset.parquet")
        assert not held_out & set(subset["sample_id"])
        metadata = metadata_of(result, "sft", "zip_subset")
        counts = ("num_rows_read", "num_picked", "num_samples", "num_quarantined", "num_held_out")
        assert [metadata[name] for name in counts] == [num_rows, num_picked, num_picked, 0, 6]
        assert metadata["num_duplicates"] == num_rows - num_picked - 6
        assert "| held out | 6 |" in metadata["fates"]
        manifest = _manifest(graph, number)
        assert manifest["held_out"]["hash"] == read_held_out(graph.root["sft"]).hash
        assert (manifest["held_out"]["num_samples"], manifest["num_held_out"]) == (6, 6)
        assert manifest["held_out"]["sources"] == {"a": 6}


def test_a_version_is_current_only_with_the_held_out_set_that_it_left_out(graph: Graph) -> None:
    """A new version follows when a person takes the set away or puts another in its place."""
    ingest(graph, "a.jsonl", 200)
    versions = [metadata_of(graph.select("sft"), "sft", "zip_subset")["version"] for _ in range(2)]
    assert versions == [1, 1]
    graph.root["sft"].held_out.unlink()
    (graph.path / "zip_pipeline.toml").write_text("[held_out]\nshare = 0.1\n")
    assert metadata_of(graph.select("sft"), "sft", "zip_subset")["version"] == 2
    assert len(_held_out(graph)) == 20
    held_out = pl.read_parquet(graph.root["sft"].held_out).head(3)
    held_out.write_parquet(graph.root["sft"].held_out)
    assert metadata_of(graph.select("sft"), "sft", "zip_subset")["version"] == 3
    held_out = [_manifest(graph, number)["held_out"]["num_samples"] for number in (1, 2, 3)]
    assert held_out == [4, 20, 3]


def test_versions_from_before_anything_was_held_out_stay_current(graph: Graph) -> None:
    """A manifest that does not tell means that nothing is held out."""
    ingest(graph, "a.jsonl", 12)
    assert graph.select("sft").success
    assert _manifest(graph, 1)["held_out"] is None
    path = graph.root["sft"].versions.path(1) / "manifest.json"
    old = {k: v for k, v in _manifest(graph, 1).items() if "held_out" not in k}
    path.write_text(json.dumps(old))
    # Nor were there hashes.
    path.with_name("hashes.json").unlink()
    metadata = metadata_of(graph.select("sft"), "sft", "zip_subset")
    assert (metadata["version"], metadata["reused"], metadata["num_held_out"]) == (1, True, 0)


def test_wrong_settings_of_the_held_out_set_stop_the_selection(graph: Graph) -> None:
    """Nothing is frozen or selected before the file is mended."""
    ingest(graph, "a.jsonl", 200)
    (graph.path / "zip_pipeline.toml").write_text("[held_out]\nshares = 0.1\n")
    result = graph.select("sft")
    assert not result.success
    assert "zip_pipeline.toml: [held_out] shares: unknown; allowed are share" in error_of(result)
    assert not graph.root["sft"].held_out.exists()
    assert graph.root["sft"].versions.numbers() == []
