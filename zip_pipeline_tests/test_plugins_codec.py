"""A codec in one file: declared here, and used by ``ratio`` and by strategies."""

import bz2
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from zip_pipeline.compression.codecs import Codec, codecs
from zip_pipeline.compression.state import texts_of
from zip_pipeline.data_root import DataRoot
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select
from zip_pipeline.workflow.versions import read_version, select_version
from zip_pipeline_tests.cli.commands import call_badly, call_well
from zip_pipeline_tests.defs.graph import SMALL, Graph, alpaca_rows, metadata_of
from zip_pipeline_tests.defs.trained_roots import ingested
from zip_pipeline_tests.selection.pools import numbered_pool


class Bz2(Codec):
    """The least that a codec declares, with no set of its own."""

    name = "bz2"
    levels = (1, 9)
    level = 9
    selection_level = 5

    def compressed_size(self, data: bytes, level: int) -> int:
        """Return the bytes that ``data`` takes when compressed."""
        return len(bz2.compress(data, level))


@pytest.fixture
def toy() -> Iterator[None]:
    """Register the codec for one test."""
    codecs.register(Bz2())
    yield
    codecs.unregister("bz2")


@pytest.mark.usefixtures("toy")
def test_ratio_measures_by_it(tmp_path: Path) -> None:
    """Its default level and its range hold."""
    data = b"word " * 4000
    (tmp_path / "x.txt").write_bytes(data)
    printed = call_well("ratio", tmp_path / "x.txt", "--codec", "bz2")
    assert f"{len(data) / len(bz2.compress(data, 9)):.3f}" in printed
    message = call_badly("ratio", tmp_path / "x.txt", "--codec", "bz2", "--level", "10")
    assert message == "--level: got 10; codec 'bz2' allows 1 to 9"


@pytest.mark.usefixtures("toy")
def test_a_strategy_measures_by_it() -> None:
    """Picks of one a round are those of the greedy that compresses the whole set each time."""
    table = numbered_pool(30)
    texts = texts_of(table, "sft")
    config = SelectionConfig(strategy="zip", codec="bz2", budget_samples=4, k1=30, k2=1, k3=1)
    assert config.resolved_level == 5
    picks: list[int] = []
    for _ in range(4):
        sets = {
            index: b"".join(texts[member] for member in [*picks, index])
            for index in range(len(texts))
            if index not in picks
        }
        ratios = {index: len(data) / len(bz2.compress(data, 5)) for index, data in sets.items()}
        picks.append(min(ratios, key=lambda index: (ratios[index], index)))
    assert select(table, None, "sft", config).picks == picks


@pytest.mark.usefixtures("toy")
def test_a_version_is_selected_by_it_and_its_library_is_not_asked_of_others(
    tmp_path: Path,
) -> None:
    """The manifest names it; what other versions record stays as it is."""
    root = DataRoot(tmp_path)
    ingested(root, "a.jsonl", 40)
    config = SelectionConfig(strategy="zip", codec="bz2", budget_samples=5, k1=20, k2=6, k3=3)
    manifest = read_version(root["sft"], select_version(root["sft"], config, print)).manifest
    assert (manifest["config"]["codec"], manifest["config"]["level"]) == ("bz2", 5)
    assert set(manifest["compression_ratio"]) == {"deflate", "zstd", "xz"}


@pytest.mark.usefixtures("toy")
def test_the_graph_selects_and_checks_by_it(tmp_path: Path) -> None:
    """The check compares R by the codec that selected."""
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(instance, tmp_path)
        graph.drop("sft", "a.jsonl", alpaca_rows(40))
        assert graph.ingest("sft", "a.jsonl").success
        result = graph.select("sft", {**SMALL, "codec": "bz2"})
        metadata_of(result, "sft", "zip_subset")
        (check,) = [
            check
            for check in result.get_asset_check_evaluations()
            if check.check_name == "less_redundant_than_random"
        ]
        assert "(bz2, lower is better)" in str(check.description)
