"""Clusters stand in for sources that are of no use."""

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from zip_pipeline.compression import texts as texts_module
from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.report.trace import fate_of
from zip_pipeline.sample_data.mixture import draw_tasks
from zip_pipeline.samples import Sample, Turn, sample_id
from zip_pipeline.selection import clusters as clusters_module
from zip_pipeline.selection.candidates import Candidates
from zip_pipeline.selection.clusters import Clusters, clusters_for, clusters_of
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import Progress
from zip_pipeline.selection.select import Selection, select
from zip_pipeline_tests.selection.pools import numbered_pool, pool_table

KINDS = {"arithmetic": 180, "functions": 120, "rewriting": 60}


def mixed_pool(sources: Sequence[str] = ("all",)) -> pl.DataFrame:
    """Return a shuffled pool of three kinds of samples, and the column ``kind``."""
    samples: list[Sample] = []
    for seed, (kind, number) in enumerate(KINDS.items()):
        drawn = (task.sample() for task in draw_tasks(Random(seed), {kind: 1}))
        distinct = {sample_id(sample): sample for sample in islice(drawn, 4 * number)}
        samples += [*distinct.values()][:number]
    kinds = [kind for kind, number in KINDS.items() for _ in range(number)]
    table = pool_table(samples, sources).with_columns(kind=pl.Series(kinds))
    return table.sample(fraction=1.0, shuffle=True, seed=5)


def found_in(table: pl.DataFrame) -> Clusters:
    """Return the clusters of a pool table."""
    with TemporaryTexts.write([texts_of(table, "sft")]) as texts:
        return clusters_of(Candidates(table, texts))


def selected(table: pl.DataFrame, **options: object) -> Selection:
    """Select 60 samples, or what the options say."""
    settings = {"strategy": "long_range", "budget_samples": 60, "k1": 100, "k2": 30, "k3": 10}
    return select(table, None, "sft", SelectionConfig(**settings | options), workers=1)


def test_kinds_of_text_end_in_different_clusters() -> None:
    """sqrt(360 / 2) = 13 clusters, largest first, each of one kind and told by its words."""
    table = mixed_pool()
    clusters = found_in(table)
    kinds = table.select("kind", name=clusters.names).group_by("name").agg(pl.all(), n=pl.len())
    assert 3 <= kinds.height <= 13
    assert all(len(set(own)) == 1 for own in kinds["kind"])
    assert kinds.sort("name")["n"].is_sorted(descending=True)
    assert sorted(clusters.words) == sorted(kinds["name"])
    assert clusters.names.cast(pl.String).str.contains(r"^cluster \d\d$").all()


def test_the_heaviest_words_are_those_of_the_samples() -> None:
    """Words, not signs or numbers, that stand in samples of the cluster."""
    table = mixed_pool()
    clusters = found_in(table)
    texts = pl.Series([text.decode().lower() for text in texts_of(table, "sft")])
    for name, words in clusters.words.items():
        own = texts.filter(clusters.names == name)
        assert all(word.isalpha() and own.str.contains(word).any() for word in words)
        assert words


def test_clusters_do_not_depend_on_the_order_of_rows() -> None:
    """Each sample is in the cluster in which it was, though rows are shuffled."""
    table = mixed_pool()
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=9)
    before, after = (
        dict(zip(rows["sample_id"], found_in(rows).names, strict=True))
        for rows in (table, shuffled)
    )
    assert table["sample_id"].to_list() != shuffled["sample_id"].to_list()
    assert before == after


def test_clusters_are_fitted_to_a_part_of_a_large_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples beyond it join the cluster of their kind."""
    monkeypatch.setattr("zip_pipeline.selection.clusters._MAX_FITTED", 120)
    table = mixed_pool()
    kinds = table.select("kind", name=found_in(table).names).group_by("name").agg("kind")["kind"]
    assert sum(len(own) for own in kinds) == 360
    most = [max(own.to_list().count(kind) for kind in KINDS) for own in kinds]
    assert sum(most) > 350


def test_few_texts_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts are more than there is memory for; their clusters are those of one reading."""
    table = mixed_pool()
    expected = found_in(table)
    read, sizes = TemporaryTexts.read, []

    def noted(texts: TemporaryTexts, indices: Sequence[int]) -> list[bytes]:
        found = read(texts, indices)
        sizes.append(sum(map(len, found)))
        return found

    monkeypatch.setattr(TemporaryTexts, "read", noted)
    monkeypatch.setattr(texts_module, "_PART_BYTES", 5_000)
    found = found_in(table)
    assert max(sizes) <= 5_000
    assert sum(sizes) > 3 * 50_000
    assert found.names.equals(expected.names)
    assert found.words == expected.words


def test_words_that_hardly_a_text_has_are_not_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few words are held at a time, and still those that tell kinds of text apart are found."""
    table, sizes = mixed_pool(), []
    texts = [
        text + b" " + b" ".join(b"%dx%d" % (number, word) for word in range(50))
        for number, text in enumerate(texts_of(table, "sft"))
    ]

    class Noted(Counter[str]):
        def update(self, *more: Any) -> None:
            super().update(*more)
            sizes.append(len(self))

    monkeypatch.setattr(clusters_module, "Counter", Noted)
    monkeypatch.setattr(clusters_module, "_MAX_COUNTED", 5_000)
    with TemporaryTexts.write([texts]) as stored:
        names = clusters_of(Candidates(table, stored)).names
    assert max(sizes) < 5_300
    kinds = table.select("kind", name=names).group_by("name", "kind").len().group_by("name")
    assert kinds.agg(pl.col("len").max())["len"].sum() > 0.95 * table.height


def test_texts_that_are_alike_or_empty_have_clusters() -> None:
    """No word tells them apart, so all are in one."""
    table = pl.DataFrame({"sample_id": [f"{n:03}" for n in range(100)], "source": ["a"] * 100})
    for text in (b"", b"the same words"):
        with TemporaryTexts.write([[text] * 100]) as texts:
            clusters = clusters_of(Candidates(table, texts))
        assert set(clusters.names) == {"cluster 01"} == set(clusters.words)


@pytest.mark.parametrize(
    ("sources", "options", "stands_in"),
    [
        pytest.param(["a"] * 100, {}, True, id="one source"),
        pytest.param(["a"] * 99, {}, False, id="a tiny pool"),
        pytest.param([str(n) for n in range(100)], {}, True, id="a source for each sample"),
        pytest.param(["a"] * 49 + [str(n // 19) for n in range(51)], {}, True, id="most in small"),
        pytest.param(["a"] * 50 + [str(n // 19) for n in range(50)], {}, False, id="half in small"),
        pytest.param(["a"] * 50 + ["b"] * 50, {}, False, id="two sources"),
        pytest.param(["a"] * 100, {"mixture": "equal"}, True, id="an equal mixture"),
        pytest.param(["a"] * 100, {"mixture": "none"}, False, id="no mixture"),
        pytest.param(["a"] * 100, {"quotas": {"a": (None, 0.5)}}, False, id="quotas"),
        pytest.param(["a"] * 100, {"mixture_weights": {"a": 2.0}}, False, id="weights"),
    ],
)
def test_clusters_stand_in_where_sources_are_of_no_use(
    sources: list[str], options: dict[str, object], stands_in: bool
) -> None:
    """Unless the person says otherwise, or the pool is tiny."""
    config = SelectionConfig(budget_samples=9, **options)
    table = numbered_pool(len(sources)).with_columns(source=pl.Series(sources))
    with TemporaryTexts.write([texts_of(table, "sft")]) as texts:
        assert (clusters_for(Candidates(table, texts), config) is not None) == stands_in


def picked_by_kind(table: pl.DataFrame, selection: Selection) -> dict[str, int]:
    """Return how many samples of each kind were picked."""
    return dict(table[selection.picks]["kind"].value_counts().iter_rows())


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "coverage"},
        {"strategy": "long_range"},
        {"strategy": "random_balanced"},
        {"strategy": "zip", "mixture": "natural"},
        {"strategy": "zip", "mixture": "natural", "num_shards": 3},
    ],
    ids=str,
)
def test_each_kind_gets_its_share(options: dict[str, object]) -> None:
    """A sixth of each, give or take what clusters round."""
    table = mixed_pool()
    selection = selected(table, **options)
    figures = selection.manifest["mixture"]
    assert selection.manifest["mixture_of"] == "clusters"
    assert sum(cluster["allotted"] for cluster in figures.values()) == 60
    assert all(cluster["used"] == cluster["allotted"] for cluster in figures.values())
    assert all(cluster["words"] for cluster in figures.values())
    picked = picked_by_kind(table, selection)
    assert all(abs(picked[kind] - number / 6) <= 2 for kind, number in KINDS.items())
    used = selection.ledger.filter(fate="picked")["competed_in"].value_counts()
    assert {name: cluster["used"] for name, cluster in figures.items() if cluster["used"]} == dict(
        used.iter_rows()
    )


@pytest.mark.parametrize("strategy", ["coverage", "zip"])
def test_without_a_mixture_kinds_have_other_shares(strategy: str) -> None:
    """So the shares above are due to the clusters."""
    table = mixed_pool()
    picked = picked_by_kind(table, selected(table, strategy=strategy, mixture="none"))
    assert any(abs(picked[kind] - number / 6) > 5 for kind, number in KINDS.items())


def test_a_source_for_each_sample_is_as_one_source() -> None:
    """The same samples compete in the same clusters, and the same are picked."""
    one, many = mixed_pool(), mixed_pool([f"s{n}" for n in range(360)])
    assert selected(one).picks == selected(many).picks
    assert len(selected(many).manifest["mixture"]) <= 13


def test_clusters_do_not_depend_on_workers(tmp_path: Path) -> None:
    """Nor on a selection that was interrupted: picks and ledger are the same."""
    table = mixed_pool()
    config = SelectionConfig(strategy="long_range", budget_samples=60, k1=100, k2=30, k3=2)
    expected = select(table, None, "sft", config, workers=1)

    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.num_picked > 40:
            raise Stopped

    with pytest.raises(Stopped):
        select(table, None, "sft", config, progress=stop, checkpoint=tmp_path / "c.npz")
    assert (tmp_path / "c.npz").exists()
    resumed = select(table, None, "sft", config, workers=2, checkpoint=tmp_path / "c.npz")
    assert resumed.picks == expected.picks
    assert resumed.ledger.equals(expected.ledger)


def test_a_checkpoint_of_sources_is_none_of_clusters(tmp_path: Path) -> None:
    """The same texts in two sources have other shares, so that nothing of them is resumed."""
    one, two = mixed_pool(), mixed_pool(("a", "b"))
    config = SelectionConfig(strategy="long_range", budget_samples=60, k1=100, k2=30, k3=2)
    expected = select(one, None, "sft", config).picks

    def stop(progress: Progress) -> None:
        if progress.num_picked > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select(two, None, "sft", config, progress=stop, checkpoint=tmp_path / "c.npz")
    assert select(one, None, "sft", config, checkpoint=tmp_path / "c.npz").picks == expected


def test_useful_sources_know_no_clusters() -> None:
    """Ledger and manifest are as ever."""
    selection = selected(mixed_pool(("a", "b")))
    assert "competed_in" not in selection.ledger.columns
    assert "mixture_of" not in selection.manifest
    assert set(selection.manifest["mixture"]) == {"a", "b"}
    assert selection.manifest["mixture"]["a"].keys() == {"allotted", "used"}


def test_the_ledger_says_where_a_sample_competed() -> None:
    """Beside its source; noise and what is held out competed nowhere."""
    base64 = b64encode(Random(0).randbytes(300)).decode()
    noise = Sample((Turn("user", "What is it?"), Turn("assistant", base64)))
    table = mixed_pool().drop("kind")
    table = pl.concat([table[:9], pool_table([noise], ["all"]), table[9:]])
    config = SelectionConfig(strategy="long_range", budget_samples=60)
    ledger = select(table, None, "sft", config, held_out=numbered_pool(3)).ledger
    assert ledger.columns[2:4] == ["source", "competed_in"]
    nowhere = ledger.filter(pl.col("competed_in").is_null())
    assert nowhere["fate"].to_list() == ["noise", "held_out", "held_out", "held_out"]
    names = found_in(table.filter(pl.col("sample_id") != sample_id(noise))).names
    assert ledger["competed_in"].drop_nulls().equals(names.cast(pl.String))


def test_trace_names_the_cluster() -> None:
    """Of each sample that competed; a share that was used up is the cluster's."""
    selection = selected(mixed_pool(), k1=360)
    for row in selection.ledger.unique("fate").iter_slices(1):
        why, where = fate_of("this", row, selection.manifest).why, row["competed_in"].item()
        assert why.endswith(f"; it competed in {where}")
        if row["fate"].item() == "quota":
            assert why.startswith(
                "others went before it, and its cluster had its share in the natural mixture;"
            )
    assert {"quota", "picked"} <= set(selection.ledger["fate"])
