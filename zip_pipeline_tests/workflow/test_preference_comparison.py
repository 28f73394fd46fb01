"""The comparison of the preference stage: its pairs, its training, a folder of its own."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.workflow.comparison import compare_model, compare_result, compare_subset
from zip_pipeline.workflow.comparison_plan import Comparison, open_comparison
from zip_pipeline_tests.workflow.comparisons import (
    NO_DRAW,
    Processes,
    add,
    pair_pool,
    records,
    sft_model,
)

SMALL = {"budget_tokens": 2_000}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a pool that nobody changes."""
    return pair_pool(tmp_path_factory.mktemp("pool") / "data").path


@pytest.fixture
def root(ingested: Path, tmp_path: Path) -> DataRoot:
    """Return a data root with the pool."""
    return DataRoot(Path(shutil.copytree(ingested, tmp_path / "data")))


def _open(root: DataRoot) -> Comparison:
    return open_comparison(root, SMALL, stage="preference")


def test_all_are_trained_as_the_graph_does_from_one_sft_model(root: DataRoot) -> None:
    """KTO on the pairs, the probe, and the loss on held-out pairs; the result tells it."""
    processes = Processes({"random": 1.5})
    for seed in range(2):
        for name in ("random+natural", "random"):
            compare_model(root, name, seed, processes, SMALL, stage="preference")
    assert [name for name, _ in processes.done[:5]] == ["kto", "probe", *["held_out"] * 3]
    assert {job["stage"] for _, job in processes.done} == {"preference"}
    trained = [job for name, job in processes.done if name in ("kto", "probe")]
    (model,) = {job["sft_model"] for job in trained}
    assert Path(model).name == "sft"
    result = compare_result(root, SMALL, stage="preference")
    assert result.stage == "preference"
    assert result.conclusion.startswith("On your pool, random beats source-balanced random by 0.5")
    assert any(f"from the SFT model {model}" in note for note in result.notes)
    assert result.alone["text"].str.starts_with("What is ").all()
    assert (result.folder / "law.svg").exists()
    header, rows = result.shown[1]
    assert [row[header.index("accuracy")] for row in rows] == ["50.0%", "50.0%"]


@pytest.mark.parametrize("strategy", ["zip", "long_range", "coverage", "score"])
def test_what_pairs_have_is_enough_to_select(root: DataRoot, strategy: str) -> None:
    """Nothing held out, and nearly all of the budget; scores are those of the chosen answers."""
    with (root.path / "zip_pipeline.toml").open("a") as file:
        file.write("[preference]\nquality = 'chosen_score'\n")
    manifest = compare_subset(root, strategy, 0, SMALL, stage="preference")
    comparison = _open(root)
    subset = pl.read_parquet(comparison.run(strategy, 0) / "subset.parquet")
    assert 1_800 <= manifest["picked_tokens"] <= 2_000
    assert not subset["sample_id"].is_in(comparison.held_ids.to_list()).any()
    if strategy == "score":
        assert subset["chosen_score"].to_list() == sorted(subset["chosen_score"], reverse=True)


def test_what_cannot_select_pairs_is_skipped(root: DataRoot) -> None:
    """The reason is told, and no process runs."""
    processes = Processes()
    skipped = compare_model(root, "score", 0, processes, SMALL, stage="preference")
    assert "quality: score selects by the quality of each sample" in skipped["skipped"]
    assert processes.done == []


def test_its_settings_are_a_table_of_their_own(root: DataRoot) -> None:
    """What [comparison] says of conversations does not reach pairs."""
    with (root.path / "zip_pipeline.toml").open("a") as file:
        file.write("[comparison]\nunseen_sources = ['web']\nbudget_tokens = 7\n")
        file.write("[preference_comparison]\nseeds = 1\nbudget_tokens = 900\n")
    comparison = open_comparison(root, stage="preference")
    assert (comparison.settings.seeds, comparison.plan["budget"]) == (1, 900)


def test_another_sft_model_begins_a_new_comparison(root: DataRoot) -> None:
    """It is told by its content, not by its place; without one nothing is drawn."""
    before = _open(root).folder
    toml = root.path / "zip_pipeline.toml"
    for config, is_same in (("{}", True), ('{"a": 1}', False)):
        moved = sft_model(root.path / f"moved-{is_same}", config)
        toml.write_text(f"{NO_DRAW}[training]\nsft_model = '{moved}'\n")
        assert (_open(root).folder == before) is is_same
    toml.write_text(NO_DRAW)
    with pytest.raises(UserError, match="the preference stage starts from an SFT model, and there"):
        _open(root)


def test_folders_of_sft_are_named_as_before(root: DataRoot) -> None:
    """Neither stage nor start is in their hash, so what was begun earlier goes on."""
    root["sft"].raw.mkdir(parents=True)
    add(root, "a.jsonl", records(240))
    comparison = open_comparison(root, SMALL)
    before = ("settings", "target", "selects", "pool", "held_out", "preset", "model", "tokenizer")
    shared = {name: comparison.plan[name] for name in before}
    words = json.dumps(shared, sort_keys=True)
    assert comparison.folder.name == fingerprint([words])[:16]
    assert not {"stage", "trainer", "sft_model"} & set(comparison.plan)
    assert {"stage", "sft_model"} <= set(_open(root).plan)


def test_undesirable_answers_are_not_what_models_are_evaluated_on(root: DataRoot) -> None:
    """They may be picked; of what is held out every row has an answer to give."""
    rated = [
        {"prompt": f"Say {n}.", "completion": f"No, not {n}.", "label": n % 2 == 0, "source": "r"}
        for n in range(80)
    ]
    add(root, "rated.jsonl", rated, "preference")
    comparison = _open(root)
    held = pl.concat([pl.read_parquet(comparison.held(name)) for name in comparison.evaluated])
    assert held.filter(source="r").height > 0
    assert (held["chosen"].list.len() > 0).all()
