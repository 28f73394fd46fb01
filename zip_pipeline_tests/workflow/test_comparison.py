"""Strategies side by side: what all runs share, what is done once, and what is left out."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import polars as pl
import pytest

from zip_pipeline.compression.state import texts_of
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.pool.pool import assemble_pool
from zip_pipeline.selection.config import stage_selection
from zip_pipeline.selection.ledger import target_facts
from zip_pipeline.training.trainers import trainers
from zip_pipeline.training.trainers.sft import Sft
from zip_pipeline.workflow import comparison as module
from zip_pipeline.workflow import comparison_plan
from zip_pipeline.workflow.comparison import compare_model, compare_result, compare_subset
from zip_pipeline.workflow.comparison_plan import ComparisonSettings, open_comparison
from zip_pipeline_tests.workflow.comparisons import NO_DRAW, Processes, add, pool, records

YARDSTICK = "random+natural"
NAMES = (YARDSTICK, "random")
SMALL = {"budget_tokens": 1_000}


@pytest.fixture
def real_figure() -> None:
    """Ask for this where the figure is to be drawn."""


@pytest.fixture(autouse=True)
def _quick_figure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_figure" not in request.fixturenames:
        for name in ("comparison_figure", "law_figure"):
            quick = create_autospec(getattr(module, name), return_value=(b"PNG", b"SVG"))
            monkeypatch.setattr(module, name, quick)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a pool that nobody changes."""
    return pool(tmp_path_factory.mktemp("pool") / "data").path


@pytest.fixture
def root(ingested: Path, tmp_path: Path) -> DataRoot:
    """Return a data root with the pool."""
    return DataRoot(Path(shutil.copytree(ingested, tmp_path / "data")))


def _subset(root: DataRoot, name: str, seed: int) -> pl.DataFrame:
    compare_subset(root, name, seed, SMALL)
    return pl.read_parquet(open_comparison(root, SMALL).run(name, seed) / "subset.parquet")


def _all(root: DataRoot, processes: Processes, num_seeds: int = 2, **changes: Any) -> None:
    for seed in range(num_seeds):
        for name in NAMES:
            compare_model(root, name, seed, processes, SMALL | changes)


def test_no_cell_of_a_csv_is_a_formula() -> None:
    """Numbers stay numbers, and words that begin with other signs stay as they are."""
    words = ["=cmd|' /C calc'!A0", "+1", "-1", "@a", "\t=1", "a=1", "'=1", "$0"]
    table = pl.DataFrame({"words": words, "num": range(-4, 4)})
    assert pl.read_csv(module._csv(table)).to_dict(as_series=False) == {
        "words": ["'=cmd|' /C calc'!A0", "'+1", "'-1", "'@a", "'\t=1", "a=1", "'=1", "$0"],
        "num": list(range(-4, 4)),
    }


def test_a_pool_of_one_source_is_compared_within_clusters(tmp_path: Path) -> None:
    """The yardstick keeps the mixture of clusters, what has no mixture knows none."""
    root = DataRoot(tmp_path / "data")
    root["sft"].raw.mkdir(parents=True)
    (root.path / "zip_pipeline.toml").write_text(NO_DRAW)
    add(root, "one.jsonl", [row | {"source": "one"} for row in records(240)])
    manifests = {name: compare_subset(root, name, 0, SMALL) for name in NAMES}
    assert manifests[YARDSTICK]["mixture_of"] == "clusters"
    assert len(manifests[YARDSTICK]["mixture"]) > 1
    assert "mixture_of" not in manifests["random"]


def test_runs_differ_in_subset_and_seed_alone(root: DataRoot) -> None:
    """Every process is told the same of preset and settings; a seed is that of all strategies."""
    processes = Processes()
    _all(root, processes)
    assert [name for name, _ in processes.done[:5]] == ["sft", "probe", *["held_out"] * 3]
    trained = [job for name, job in processes.done if name in ("sft", "probe")]
    assert [job["overrides"] for job in trained] == [*[{"seed": 0}] * 4, *[{"seed": 1}] * 4]
    of_run = ("subset", "output", "overrides")
    shared = [{k: v for k, v in job.items() if k not in of_run} for job in trained]
    assert all(job == {"stage": "sft", "preset": "tiny", "num_devices": 1} for job in shared)
    evaluated = [job for name, job in processes.done if name == "held_out"]
    assert len({job["samples"] for job in evaluated}) == 3
    assert {job["max_length"] for job in evaluated} == {256}


def test_all_pick_from_one_pool_within_one_budget(root: DataRoot) -> None:
    """Nothing held out, nothing of an unseen source, at most the budget and nearly all of it."""
    plan = open_comparison(root, SMALL).plan
    held = open_comparison(root, SMALL).held_ids.to_list()
    assert len(plan["unseen_sources"]) == 1
    for name in ("long_range", "zip", *NAMES):
        subset = _subset(root, name, 0)
        assert not subset["source"].is_in(plan["unseen_sources"]).any()
        assert not subset["sample_id"].is_in(held).any()
        manifest = compare_subset(root, name, 0, SMALL)
        assert 950 <= manifest["picked_tokens"] <= 1_000
    everything = {**SMALL, "budget_tokens": 10**9}
    manifest = compare_subset(root, "random", 0, everything)
    assert manifest["num_samples"] == pytest.approx(0.9 * plan["num_candidates"], rel=0.1)


def test_a_seed_draws_anew_for_a_strategy_without_chance(root: DataRoot) -> None:
    """Another tenth is left out, the same for all strategies, so zip picks otherwise."""
    first, second = (_subset(root, "zip", seed) for seed in (0, 1))
    assert set(first["sample_id"]) != set(second["sample_id"])
    everything = {"budget_tokens": 10**9}
    seen: dict[tuple[str, int], set[str]] = {}
    for name in NAMES:
        for seed in (0, 1):
            compare_subset(root, name, seed, everything)
            path = open_comparison(root, everything).run(name, seed) / "subset.parquet"
            seen[name, seed] = set(pl.read_parquet(path)["sample_id"])
    assert seen["random", 0] == seen[YARDSTICK, 0] != seen["random", 1] == seen[YARDSTICK, 1]


@pytest.mark.parametrize("stop_before", [1, 2, 3, 5, 6, 8, 10])
def test_a_stopped_comparison_does_nothing_twice(root: DataRoot, stop_before: int) -> None:
    """Interrupted before any process, the next call goes on with that one."""
    first, second = Processes(stop_before=stop_before), Processes()
    changes = SMALL | {"seeds": 1}
    with pytest.raises(KeyboardInterrupt):
        _all(root, first, num_seeds=1)
    _all(root, second, num_seeds=1)
    _all(root, Processes(stop_before=1), num_seeds=1)
    outputs = [(name, job["output"]) for name, job in first.done + second.done]
    assert len(outputs) == len(set(outputs)) == 10
    assert len(first.done) == stop_before - 1
    assert compare_result(root, changes).runs.height == 2


def test_a_finished_subset_is_not_selected_again(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest is returned as it was written."""
    manifest = compare_subset(root, "zip", 0, SMALL)
    monkeypatch.setattr(module, "select_candidates", None)
    assert compare_subset(root, "zip", 0, SMALL) == json.loads(json.dumps(manifest))


@pytest.mark.usefixtures("real_figure")
def test_figures_and_files_of_a_result(root: DataRoot) -> None:
    """The table has every figure; the files say the same, and what was not run is told."""
    _all(root, Processes({"random": 1.5}))
    result = compare_result(root, SMALL | {"strategies": ("random", "long_range")})
    assert result.measure == "unseen"
    assert result.conclusion.startswith(
        "On your pool, random beats source-balanced random by 0.500 nats (95% 0.500 to 0.500) on"
    )
    num = open_comparison(root, SMALL).plan["num_held"]
    assert result.certainty == [
        f"The loss on unseen sources is of {num['unseen']} samples; the best was chosen by "
        f"{num['unseen_choice']} others."
    ]
    assert result.settings == '[sft]\nstrategy = "random"\nbudget_tokens = 1000'
    assert result.settings in (result.folder / "comparison.md").read_text()
    assert result.skipped == {f"long_range-{seed}": "not run yet" for seed in range(3)} | {
        f"{name}-2": "not run yet" for name in NAMES
    }
    losses = {
        f"{s}_{f}" for s in ("seen", "unseen", "unseen_choice") for f in ("loss", "bits_per_byte")
    }
    amounts = {"num_samples", "num_tokens", "num_target_tokens", "selection_seconds"}
    diversity = {"distinct_1", "distinct_2", "distinct_3", "vendi", "novelsum"}
    told = {"strategy", "seed", "R", "L", "Z", "Q", "mean_tokens"}
    assert set(result.runs.columns) == told | losses | amounts | diversity
    assert [name for name in result.runs.columns if result.runs[name].has_nulls()] == ["Q"]
    assert "Q is unknown: [sft] names no quality, such as a number of" in result.notes[-1]
    assert result.runs["Z"].to_list() == [-loss for loss in result.runs["unseen_loss"]]
    assert result.runs["mean_tokens"].is_between(15, 40).all()
    files = {path.name for path in result.folder.iterdir() if path.is_file()}
    assert files == {
        *("plan.json", "result.json", "runs.parquet", "table.csv", "overlap.csv", "alone.csv"),
        *("comparison.md", "comparison.png", "comparison.svg", "law.csv", "law.png", "law.svg"),
    }
    assert set(result.figures) == {"comparison", "law"}
    assert result.figures["law"] == (result.folder / "law.png").read_bytes()
    assert pl.read_csv(result.folder / "law.csv")["num_points"].to_list() == [4, 4, 4]
    written = json.loads((result.folder / "result.json").read_text())
    assert written["conclusion"] == result.conclusion
    assert written["table"] == result.table.to_dicts()
    assert pl.read_parquet(result.folder / "runs.parquet").equals(result.runs)
    assert result.conclusion in (result.folder / "comparison.md").read_text()
    assert any("tiny" in note for note in result.notes)
    assert result.overlap["strategy"].to_list() == [YARDSTICK, "random"]
    assert result.overlap["random"][1] == 1
    of_both = [set(_subset(root, name, 0)["sample_id"]) for name in NAMES]
    alone = result.alone.filter(strategy="random")
    assert 0 < alone.height <= 10
    assert set(alone["sample_id"]) <= of_both[1] - of_both[0]
    assert alone["text"][0].startswith("What is ")


def test_more_strategies_and_seeds_go_on_with_the_same_comparison(root: DataRoot) -> None:
    """Another budget, unit, preset or batch begins a new one."""
    first = open_comparison(root, SMALL).folder
    more = SMALL | {"strategies": ("zip",), "seeds": 5}
    assert open_comparison(root, more).folder == first
    others = [{"budget_tokens": 999}, SMALL | {"unit": "target_tokens"}, {}]
    folders = [first, *(open_comparison(root, changes).folder for changes in others)]
    toml = root.path / "zip_pipeline.toml"
    toml.write_text(f"{NO_DRAW}[training]\noverrides = {{max_length = 128}}\n")
    folders.append(open_comparison(root, SMALL).folder)
    toml.write_text(NO_DRAW)
    add(root, "b.jsonl", records(3, first=900))
    folders.append(open_comparison(root, SMALL).folder)
    assert len(set(folders)) == 6


def test_target_tokens_are_a_unit_of_their_own(root: DataRoot) -> None:
    """At equal target tokens the budget is one of these."""
    changes = {"budget_tokens": 300, "unit": "target_tokens"}
    manifest = compare_subset(root, "zip", 0, changes)
    assert 270 <= manifest["picked_target_tokens"] <= 300 < manifest["picked_tokens"]


def test_budget_is_a_fifth_or_the_share_that_sft_selects(root: DataRoot) -> None:
    """Where [sft] selects a tenth of the samples it is a tenth of the tokens."""
    plan = open_comparison(root).plan
    tokens = _candidate_tokens(root)
    assert plan["budget"] == pytest.approx(tokens / 5, abs=1)
    num = plan["num_candidates"] // 10
    (root.path / "zip_pipeline.toml").write_text(f"{NO_DRAW}[sft]\nbudget_samples = {num}\n")
    share = num / plan["num_candidates"]
    assert open_comparison(root).plan["budget"] == pytest.approx(tokens * share, abs=1)
    (root.path / "zip_pipeline.toml").write_text(f'{NO_DRAW}[sft]\nbudget_samples = "10%"\n')
    assert open_comparison(root).plan["budget"] == pytest.approx(tokens * 0.1, rel=0.02)


def test_a_budget_may_be_a_share_of_the_pool(root: DataRoot) -> None:
    """Of all that may be picked, in the unit; another share is another comparison."""
    plan = open_comparison(root, {"budget_tokens": "25%"}).plan
    assert plan["budget"] == _candidate_tokens(root) // 4
    assert plan["settings"]["budget_tokens"] == "25%"


def _candidate_tokens(root: DataRoot) -> int:
    comparison = open_comparison(root)
    samples = assemble_pool(root["sft"]).samples
    state = pl.read_parquet(root["sft"].state("a.jsonl"))
    left = samples.filter(
        ~pl.col("source").is_in(comparison.plan["unseen_sources"]),
        ~pl.col("sample_id").is_in(comparison.held_ids.to_list()),
    )
    return int(left.join(state, on="sample_id")["num_tokens"].sum())


def test_rows_above_the_maximum_length_take_no_part(root: DataRoot) -> None:
    """A row that is cut would make tokens unequal; the note says how many there are."""
    lengths = pl.read_parquet(root["sft"].state("a.jsonl"))["num_tokens"]
    longest = sorted(lengths)[180]
    toml = root.path / "zip_pipeline.toml"
    toml.write_text(f"{NO_DRAW}[training]\noverrides = {{max_length = {longest}}}\n")
    manifest = compare_subset(root, "random", 0, {"budget_tokens": 10**6})
    plan = open_comparison(root, {"budget_tokens": 10**6}).plan
    assert plan["num_too_long"] == lengths.filter(lengths > longest).len() > 0
    picked = pl.read_parquet(
        open_comparison(root, {"budget_tokens": 10**6}).run("random", 0) / "subset.parquet"
    )
    state = pl.read_parquet(root["sft"].state("a.jsonl"))
    assert picked.join(state, on="sample_id")["num_tokens"].max() <= longest
    assert manifest["num_picked"] == picked.height


def test_a_strategy_without_its_target_is_skipped_with_the_reason(root: DataRoot) -> None:
    """No process runs for it, and the result tells why."""
    reason = (
        "target: dsir selects by the samples of a file, and got none; name one whose samples are "
        "like what the model shall do"
    )
    processes = Processes()
    assert compare_model(root, "dsir", 0, processes, SMALL) == {"skipped": reason}
    assert processes.done == []
    with pytest.raises(UserError, match=r"no run is finished \(.*; dsir-0: target: dsir"):
        compare_result(root, SMALL)
    _all(root, processes)
    assert compare_result(root, SMALL).skipped["dsir-0"] == reason


def test_a_strategy_that_lacks_a_library_is_skipped_until_it_is_there(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says is the reason; the next call tries again."""

    def fail(*_: object, **__: object) -> None:
        raise UserError("zip needs zlib, which is not installed")

    with monkeypatch.context() as patch:
        patch.setattr(module, "select_candidates", fail)
        skipped = {"skipped": "zip needs zlib, which is not installed"}
        assert compare_subset(root, "zip", 0, SMALL) == skipped
    assert compare_subset(root, "zip", 0, SMALL)["num_picked"] > 0
    assert not (open_comparison(root, SMALL).run("zip", 0) / "skipped.json").exists()


def test_a_target_decides_by_the_half_that_nobody_was_told_of(root: DataRoot) -> None:
    """A quarter is to choose by, a quarter to judge by; none of it may be picked."""
    rows = [*records(4), *records(16, first=5000)]
    (root.path / "target.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = SMALL | {"target": "target.jsonl"}
    comparison = open_comparison(root, changes)
    sizes = {"target_told": 10, "target_choice": 5, "target": 5}
    assert sizes.items() <= comparison.plan["num_held"].items()
    tables = [pl.read_parquet(comparison.held(name))["sample_id"] for name in sizes]
    assert pl.concat(tables).n_unique() == 20
    assert sorted(comparison.evaluated) == ["seen", "target", "target_choice", "unseen"]
    assert comparison.plan["measure"] == "target"
    compare_subset(root, "random", 0, changes | {"budget_tokens": 10**9})
    everything = open_comparison(root, changes | {"budget_tokens": 10**9})
    subset = pl.read_parquet(everything.run("random", 0) / "subset.parquet")
    assert not subset["sample_id"].is_in(pl.concat(tables).to_list()).any()
    _all(root, Processes({"random": 1.5}), target="target.jsonl")
    assert compare_result(root, changes).conclusion.startswith(
        "On your pool and target, random beats"
    )


def test_settings_of_the_winner_select_as_it_did(root: DataRoot) -> None:
    """They are lines of zip_pipeline.toml, with mixture and target where it has them."""
    rows = [*records(4), *records(16, first=5000)]
    (root.path / "target.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, losses, told in (
        ("dsir+equal", {"dsir+equal": 1.5}, {"mixture": "equal", "target": "target.jsonl"}),
        ("random+natural", {"dsir+equal": 2.5}, {"mixture": "natural"}),
    ):
        changes = SMALL | {"target": "target.jsonl", "strategies": ("dsir+equal",)}
        changes |= {"budget_tokens": 1000 + len(name)}
        processes = Processes(losses)
        for strategy, seed in open_comparison(root, changes).wanted().values():
            compare_model(root, strategy, seed, processes, changes)
        (root.path / "zip_pipeline.toml").write_text(compare_result(root, changes).settings)
        config = stage_selection(root.path, "sft")
        found = config.as_dict()
        assert found["strategy"] == name.partition("+")[0]
        assert found["budget_tokens"] == 1000 + len(name)
        assert told.items() <= found.items()


def test_quality_and_signals_are_those_of_the_nightly_run(root: DataRoot) -> None:
    """What selects by scores is compared where [sft] names some; other ones begin anew."""
    before = open_comparison(root, SMALL).folder
    assert "quality: score selects by" in compare_subset(root, "score", 0, SMALL)["skipped"]
    scores = assemble_pool(root["sft"]).samples.select("sample_id", score=pl.col("source_row"))
    scores.write_csv(root.path / "scores.csv")
    (root.path / "zip_pipeline.toml").write_text(f"{NO_DRAW}[sft]\nquality = 'scores.csv'\n")
    assert open_comparison(root, SMALL).folder != before
    rows = _subset(root, "score", 0)["source_row"]
    assert rows.to_list() == sorted(rows, reverse=True)
    settings = "[signals.loss]\nmax_length = 64\n"
    (root.path / "zip_pipeline.toml").write_text(NO_DRAW + settings)
    assert open_comparison(root, SMALL).plan["signals"] == {"loss": {"max_length": 64}}


def test_q_is_the_mean_quality_of_the_picks_of_every_strategy(root: DataRoot) -> None:
    """Also of those that pay no heed to it; where a sample has none, the reason stands there."""
    toml = root.path / "zip_pipeline.toml"
    scores = assemble_pool(root["sft"]).samples.select("sample_id", score=pl.col("source_row"))
    scores.write_csv(root.path / "scores.csv")
    toml.write_text(f"{NO_DRAW}[sft]\nquality = 'scores.csv'\n")
    compare_model(root, "random", 0, Processes(), SMALL)
    result = compare_result(root, SMALL)
    subset = pl.read_parquet(open_comparison(root, SMALL).run("random", 0) / "subset.parquet")
    assert result.runs["Q"].to_list() == [subset["source_row"].mean()]
    assert result.notes[-1] == "Q is the mean of scores.csv over the picks."
    toml.write_text(f"{NO_DRAW}[sft]\nquality = 'meta.score'\n")
    compare_model(root, "random", 0, Processes(), SMALL)
    result = compare_result(root, SMALL)
    assert result.runs["Q"].to_list() == [None]
    assert "Q is unknown: quality: 240 of 240 samples have no number as meta" in result.notes[-1]
    toml.write_text(f"{NO_DRAW}[sft]\nquality = 'signals.loss.loss'\n")
    compare_model(root, "random", 0, Processes(), SMALL)
    words = "Q is unknown: signals.loss.loss was not measured of the whole pool yet."
    assert compare_result(root, SMALL).notes[-1] == words
    assert not root["sft"].signal("loss", "a.jsonl").exists()


def test_another_trainer_begins_a_new_comparison(root: DataRoot) -> None:
    """It trains every model, and finished runs of the default are none of its own."""

    class Other(Sft):
        name = "other"
        module = "a.package.other"

    before = open_comparison(root, SMALL).folder
    trainers.register(Other())
    try:
        (root.path / "zip_pipeline.toml").write_text(f"{NO_DRAW}[training]\ntrainer = 'other'\n")
        comparison = open_comparison(root, SMALL)
        assert comparison.folder != before
        assert comparison.trainer.module == "a.package.other"
    finally:
        trainers.unregister("other")


def test_few_evaluation_samples_are_of_all_sources(root: DataRoot) -> None:
    """Each set has as many as are asked for; what a strategy is told of the target stays whole."""
    rows = "".join(json.dumps(row) + "\n" for row in records(24, first=5000))
    (root.path / "target.jsonl").write_text(rows)
    changes = SMALL | {"target": "target.jsonl", "unseen_sources": ["s1", "s2", "s3", "s4"]}
    whole = open_comparison(root, changes)
    few = open_comparison(root, changes | {"evaluation_samples": 4})
    assert few.folder != whole.folder
    assert few.plan["num_held"] == dict.fromkeys(whole.plan["num_held"], 4) | {"target_told": 12}
    assert pl.read_parquet(few.held("unseen"))["source"].n_unique() == 4
    for name in few.evaluated:
        kept, ids = (pl.read_parquet(c.held(name))["sample_id"] for c in (few, whole))
        assert kept.is_in(ids.to_list()).all()


@pytest.mark.parametrize("strategy", ["dsir", "zip_fit", "target_coverage"])
def test_a_strategy_with_a_target_is_told_of_its_half(root: DataRoot, strategy: str) -> None:
    """It gets the texts of the first half, and nothing of the other."""
    rows = "".join(json.dumps(row) + "\n" for row in records(20, first=5000))
    (root.path / "target.jsonl").write_text(rows)
    changes = SMALL | {"target": "target.jsonl"}
    comparison = open_comparison(root, changes)
    half = pl.read_parquet(comparison.held("target_told"))
    manifest = compare_subset(root, strategy, 0, changes)
    assert manifest["target"] == target_facts(texts_of(half, "sft"))
    assert half.height == 10
    assert 950 <= manifest["picked_tokens"] <= 1_000
    assert comparison.settings.names()[-3:] == ["target_coverage", "zip_fit", "dsir"]


def test_without_enough_sources_held_out_samples_decide(tmp_path: Path, root: DataRoot) -> None:
    """With no source unseen the held-out samples are halved."""
    comparison = open_comparison(root, SMALL | {"unseen_sources": ()})
    assert comparison.plan["measure"] == "seen"
    assert sorted(comparison.evaluated) == ["seen", "seen_choice"]
    two = open_comparison(root, SMALL | {"unseen_sources": ("s1", "s2")})
    choice, judged = (pl.read_parquet(two.held(n)) for n in ("unseen_choice", "unseen"))
    assert sorted({*choice["source"]} | {*judged["source"]}) == ["s1", "s2"]
    assert choice["source"].n_unique() == judged["source"].n_unique() == 1


def test_what_the_data_root_holds_out_is_not_trained_on(root: DataRoot) -> None:
    """A source that is held out whole is an unseen one, and no other is drawn."""
    (root.path / "zip_pipeline.toml").write_text(
        "[held_out]\nshare = 0.1\nmin_source_samples = 10\nwhole_sources = ['s3']\n"
    )
    comparison = open_comparison(root, SMALL)
    assert comparison.plan["unseen_sources"] == ["s3"]
    unseen = [pl.read_parquet(comparison.held(n)) for n in ("unseen", "unseen_choice")]
    assert {*pl.concat(unseen)["source"]} == {"s3"}
    frozen = pl.read_parquet(root["sft"].held_out).filter(pl.col("source") != "s3")
    seen = pl.read_parquet(comparison.held("seen"))
    assert frozen.join(seen, on="sample_id", how="anti").is_empty()
    assert seen.height > frozen.height


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": ("magic",)}, r"strategies: strategy: got 'magic'; allowed are zip, "),
        ({"strategies": ("zip+all",)}, r"strategies: got 'zip\+all'; allowed mixtures are none, n"),
        ({"evaluation_samples": 1}, "evaluation_samples: got 1; allowed are whole numbers, 2 to "),
        ({"seeds": 6}, "seeds: got 6; allowed are whole numbers, 1 to 5"),
        ({"unit": "bytes"}, "unit: got 'bytes'; allowed are tokens, target_tokens"),
        ({"unseen_sources": ("web",)}, "unseen_sources: 'web' is none of the pool; it has s0, s1"),
        (
            {"unseen_sources": tuple(f"s{n}" for n in range(6))},
            "unseen_sources: these are all of the pool",
        ),
        ({"target": "no.jsonl"}, r"target: .*no\.jsonl: no such file or folder"),
    ],
)
def test_wrong_settings_are_refused(root: DataRoot, changes: dict, message: str) -> None:
    """The message names the field, what came and what is allowed."""
    with pytest.raises(UserError, match=message):
        open_comparison(root, changes)


def test_a_target_of_other_rows_is_refused(root: DataRoot) -> None:
    """No row of it is passed over."""
    target = root.path / "target.jsonl"
    target.write_text('{"a": 1}\n')
    with pytest.raises(UserError, match=r"target: target\.jsonl, row 1 is no sample: "):
        open_comparison(root, {"target": "target.jsonl"})
    target.write_text("".join(json.dumps(row) + "\n" for row in records(3)))
    with pytest.raises(UserError, match=r"target\.jsonl has 3 samples; give 4 or more"):
        open_comparison(root, {"target": "target.jsonl"})


def test_an_empty_or_tiny_pool_is_refused(tmp_path: Path) -> None:
    """There is nothing to compare on."""
    with pytest.raises(UserError, match="no batch of stage sft is ingested"):
        open_comparison(DataRoot(tmp_path))
    with pytest.raises(UserError, match="the pool is too small for a comparison"):
        open_comparison(pool(tmp_path / "data", num=6))


def test_comparing_needs_what_trains(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so before anything is drawn."""

    def missing(library: str, what: str) -> None:
        raise UserError(f"{what} needs {library}")

    monkeypatch.setattr(comparison_plan, "require", missing)
    with pytest.raises(UserError, match="a comparison needs torch"):
        open_comparison(root)
    assert not root.comparisons.exists()


def test_a_pool_that_changes_meanwhile_is_told(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of one comparison never see different pools."""
    opened = open_comparison(root, SMALL)
    add(root, "b.jsonl", records(3, first=900))
    monkeypatch.setattr(module, "open_comparison", lambda *_, **__: opened)
    with pytest.raises(UserError, match="the pool changed since the comparison was opened"):
        compare_subset(root, "zip", 0, SMALL)


def test_usual_strategies_are_those_that_there_are() -> None:
    """The yardstick comes first, also where it is not named."""
    assert ComparisonSettings().names()[:4] == [YARDSTICK, "random", "zip", "long_range"]
    assert ComparisonSettings(strategies=("zip", YARDSTICK)).names() == [YARDSTICK, "zip"]
