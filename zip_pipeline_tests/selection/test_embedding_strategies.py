"""Strategies that look at vectors of samples or tags, against slow oracles, on made-up ones."""

import math
import tracemalloc
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import zip_pipeline
from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.errors import UserError
from zip_pipeline.report.fates import explain_fate
from zip_pipeline.samples import contents_text
from zip_pipeline.selection import vectors as of_vectors
from zip_pipeline.selection.candidates import Candidates, Measured, SignalTables
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.run import Progress
from zip_pipeline.selection.select import Selection, select_candidates
from zip_pipeline.selection.strategies import (
    d4,
    facility_location,
    mig,
    novel_select,
    rds,
    strategies,
)
from zip_pipeline.selection.strategies.random import random_order
from zip_pipeline.selection.vectors import Clusters, clusters_of, cosines, exact
from zip_pipeline.signals.embedding import EmbeddingSettings, embedder
from zip_pipeline_tests.cli.pools import sft_records
from zip_pipeline_tests.selection.pools import numbered_pool

NUM = 72
TABLE = numbered_pool(NUM)
IDS = TABLE["sample_id"].to_list()
BY_ID = sorted(range(NUM), key=IDS.__getitem__)
QUALITY = [(row * 37 % 11) / 2 for row in range(NUM)]
# The texts of three samples have no word.
EMPTY = (5, 20, 41)
NAMES = ("cluster", "d4", "novel_select", "facility_location", "rds", "car", "mig")
OPTIONS = {"rds": {"target": "t.jsonl"}, "car": {"quality": "q"}, "mig": {"quality": "q"}}
COSTS = {"samples": [1] * NUM, "bytes": [len(text) for text in texts_of(TABLE, "sft")]}
BUDGETS = {"samples": 25, "bytes": 2500}

Vector = NDArray[np.float32]


def made_up(num: int, seed: int, num_kinds: int = 9) -> Vector:
    """Return vectors around some centres; every sixth is the same as the one before."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(num_kinds, 8))
    vectors = centres[random.integers(num_kinds, size=num)] + random.normal(size=(num, 8)) * 0.4
    vectors[6::6] = vectors[5:-1:6]
    return vectors.astype(np.float32)


POOL = made_up(NUM, 1)
TARGET = made_up(5, 2)
TAG_VECTORS = exact(np.concatenate([made_up(14, 3, num_kinds=4), np.zeros((1, 8))]))
TAGS = [f"tag {number:02}" for number in range(len(TAG_VECTORS))]


def tagged(num: int, seed: int, tags: Sequence[str] = TAGS) -> list[list[str]]:
    """Return one to four tags of each sample, some of them far more often than others."""
    random = np.random.default_rng(seed)
    shares = 1 / np.arange(1, len(tags) + 1)
    sizes = random.integers(1, 5, size=num).tolist()
    draws = [random.choice(len(tags), n, replace=False, p=shares / shares.sum()) for n in sizes]
    return [[tags[place] for place in draw.tolist()] for draw in draws]


TAGS_OF = tagged(NUM, 4)


def column_of(vectors: Vector, empty: Sequence[int] = ()) -> pl.DataFrame:
    """Return vectors as a table of the signal, null for some."""
    rows = [None if row in empty else own for row, own in enumerate(vectors.tolist())]
    return pl.DataFrame({"vector": pl.Series(rows, dtype=pl.List(pl.Float32))})


def config_of(strategy: str, unit: str = "samples", **options: object) -> SelectionConfig:
    """Return a configuration with what the strategy needs."""
    given = {f"budget_{unit}": BUDGETS[unit], "noise_guard": False, "seed": 3}
    return SelectionConfig(strategy=strategy, **(given | OPTIONS.get(strategy, {}) | options))


def select_by(
    config: SelectionConfig,
    rows: Sequence[int] = range(NUM),
    workers: int = 1,
    vectors: Vector = POOL,
    target: Vector = TARGET,
    empty: Sequence[int] = EMPTY,
    tags: Sequence[Sequence[str]] = TAGS_OF,
    **options: object,
) -> Selection:
    """Select from the pool with its rows in an order; those that are empty have no tags either."""
    rows = list(rows)
    table = TABLE[rows]
    of_rows = [None if row in empty else own for row, own in enumerate(tags)]
    signals = SignalTables(
        {"embedding": "made up"},
        {
            "embedding": column_of(vectors, empty)[rows],
            "tags": pl.DataFrame({"tags": pl.Series(of_rows, dtype=pl.List(pl.String))})[rows],
        },
        {"embedding": column_of(target)},
        column_of(TAG_VECTORS, [len(TAGS) - 1]).with_columns(tag=pl.Series(TAGS)),
    )
    with TemporaryTexts.write([texts_of(table, "sft")]) as texts:
        candidates = Candidates(
            table,
            texts,
            target=[b"told"],
            quality=pl.Series([QUALITY[row] for row in rows]),
            signals=signals,
        )
        return select_candidates(candidates, "sft", config, workers=workers, **options)


def cosine(one: Vector, other: Vector) -> float:
    """The cosine of two exact vectors, by a sum without rounding."""
    return math.fsum(float(a) * float(b) for a, b in zip(one, other, strict=True))


EXACT = exact(POOL)
NEAR = {
    (row, other): cosine(EXACT[row], EXACT[other]) for row in range(NUM) for other in range(NUM)
}
HAS_VECTOR = [row for row in BY_ID if row not in EMPTY]
WITHOUT = [row for row in BY_ID if row in EMPTY]


def clusters_by_id(seed: int, rows: Sequence[int]) -> tuple[dict[int, int], dict[int, float]]:
    """Return the label and the cosine of each row, from the clusters of rows in that order."""
    found = clusters_of(EXACT[list(rows)], seed, "a test")
    labels, near = found.labels.tolist(), found.cosines.tolist()
    return dict(zip(rows, labels, strict=True)), dict(zip(rows, near, strict=True))


def turns_oracle(rows: Sequence[int], label: dict[int, int]) -> list[int]:
    """Queues of each cluster, the longest first, of which each gives one in turn."""
    queues: dict[int, list[int]] = {}
    for row in rows:
        queues.setdefault(label[row], []).append(row)
    in_order = sorted(queues, key=lambda own: (-len(queues[own]), own))
    turns = []
    while any(queues.values()):
        turns += [queues[own].pop(0) for own in in_order if queues[own]]
    return turns


def cluster_oracle() -> list[int]:
    """Nearest to the centroid first in each cluster."""
    label, near = clusters_by_id(3, HAS_VECTOR)
    return turns_oracle(sorted(HAS_VECTOR, key=lambda row: -near[row]), label) + WITHOUT


def d4_oracle() -> list[int]:
    """Every pair of a cluster, one by one; then the clusters of what is kept."""
    label, near = clusters_by_id(3, HAS_VECTOR)
    repeats = dict.fromkeys(HAS_VECTOR, 0.0)
    farthest_first = sorted(HAS_VECTOR, key=near.__getitem__)
    for place, row in enumerate(farthest_first):
        for farther in farthest_first[:place]:
            if label[farther] == label[row]:
                repeats[row] = max(repeats[row], NEAR[row, farther])
    least_first = sorted(HAS_VECTOR, key=repeats.__getitem__)
    num_kept = math.ceil(0.75 * len(HAS_VECTOR))
    kept = [row for row in HAS_VECTOR if row in least_first[:num_kept]]
    _, near = clusters_by_id(3, kept)
    return sorted(kept, key=near.__getitem__) + least_first[num_kept:] + WITHOUT


def car_oracle(costs: Sequence[int], budget: int) -> list[int]:
    """The best up to half of the budget, then the best of each cluster."""
    best_first = sorted(BY_ID, key=lambda row: -max(QUALITY[row], 1e-12))
    order, used = [], 0
    for row in best_first:
        used += costs[row]
        if used > budget / 2:
            break
        order.append(row)
    label, _ = clusters_by_id(3, HAS_VECTOR)
    turns = turns_oracle([row for row in best_first if row in label], label)
    return [*order, *(row for row in turns + WITHOUT if row not in order)]


def filled(order: Sequence[int], costs: Sequence[int], budget: int) -> list[int]:
    """Pick in order what fits."""
    picks: list[int] = []
    for row in order:
        if costs[row] <= budget - sum(costs[pick] for pick in picks):
            picks.append(row)
    return picks


def greedy(
    costs: Sequence[int], budget: int, best: Callable[[list[int], list[int]], int]
) -> list[int]:
    """Pick the best of those that fit, with vectors as long as there are any."""
    picks: list[int] = []
    while True:
        left = budget - sum(costs[pick] for pick in picks)
        fitting = [row for row in BY_ID if row not in picks and costs[row] <= left]
        if not fitting:
            return picks
        with_vector = [row for row in fitting if row not in EMPTY]
        picks.append(best(with_vector, picks) if with_vector else fitting[0])


def rds_oracle(costs: Sequence[int], budget: int) -> list[int]:
    """Each row of the target in turn takes its nearest that is left."""
    target = exact(TARGET)

    def nearest(fitting: list[int], picks: list[int]) -> int:
        own = target[len(picks) % len(target)]
        return max(fitting, key=lambda row: cosine(EXACT[row], own))

    return greedy(costs, budget, nearest)


def facility_oracle(
    costs: Sequence[int], budget: int, quality: Sequence[float] | None = None
) -> list[int]:
    """Each gain anew, from all pairs, whose cosines are rounded."""
    near = {pair: round(min(max(value, 0), 1) * 65535) / 65535 for pair, value in NEAR.items()}
    held = dict.fromkeys(HAS_VECTOR, 0.0)

    def gain(row: int) -> float:
        adds = math.fsum(max(near[v, row] - held[v], 0) for v in HAS_VECTOR)
        if quality is None:
            return adds / costs[row]
        return (0.5 * adds + 0.5 * quality[row]) / costs[row]

    def best(fitting: list[int], picks: list[int]) -> int:
        found = max(fitting, key=gain)
        held.update({v: max(held[v], near[v, found]) for v in HAS_VECTOR})
        return found

    return greedy(costs, budget, best)


def novel_oracle(costs: Sequence[int], budget: int) -> list[int]:
    """Each mean anew, ranks by sorting; densities over all pairs of different vectors."""
    distance = {pair: max(1 - value, 0) for pair, value in NEAR.items()}
    density = {}
    different = {EXACT[row].tobytes(): row for row in HAS_VECTOR}
    for row in HAS_VECTOR:
        own = EXACT[row].tobytes()
        others = sorted(distance[row, b] for key, b in different.items() if key != own)[:10]
        density[row] = 1 / math.sqrt(math.fsum(others) / len(others) + 1e-9)
    start = [HAS_VECTOR[place] for place in random_order([IDS[row] for row in HAS_VECTOR], 3)]

    def best(fitting: list[int], picks: list[int]) -> int:
        if not picks:
            return next(row for row in start if row in fitting)

        def novelty(row: int) -> float:
            weighted = sorted(
                (density[row] + density[pick]) * distance[row, pick] for pick in picks
            )
            return sum(value / rank for rank, value in enumerate(weighted, 1)) / len(picks)

        return max(fitting, key=lambda row: round(novelty(row), 9))

    return greedy(costs, budget, best)


def mig_oracle(
    costs: Sequence[int],
    budget: int,
    least_cosine: float = 0.9,
    quality: Sequence[float] = QUALITY,
    tags: Sequence[Sequence[str]] = TAGS_OF,
) -> list[int]:
    """What every sample would tell of every tag, anew for each pick; no tag is left out of P."""
    vector_of = dict(zip(TAGS, TAG_VECTORS, strict=True))
    nodes = sorted({tag for row in HAS_VECTOR for tag in tags[row]})
    edge = {(a, b): cosine(vector_of[a], vector_of[b]) for a in nodes for b in nodes}
    edge = {pair: value if value >= least_cosine else 0.0 for pair, value in edge.items()}
    edge |= {(tag, tag): 1.0 for tag in nodes}
    sums = {tag: math.fsum(edge[tag, other] for other in nodes) for tag in nodes}
    told = dict.fromkeys(nodes, 0.0)

    def tells(row: int, tag: str) -> float:
        own = math.fsum(edge[tag, other] for other in set(tags[row]))
        return max(quality[row], 1e-12) * own / sums[tag]

    def gain(row: int) -> float:
        parts = [0.8 * (told[tag] + 1e-6) ** -0.2 * tells(row, tag) for tag in nodes]
        return float(np.float32(math.fsum(parts))) / costs[row]

    def best(fitting: list[int], picks: list[int]) -> int:
        found = max(fitting, key=gain)
        told.update({tag: told[tag] + tells(found, tag) for tag in nodes})
        return found

    return greedy(costs, budget, best)


@cache
def oracle(strategy: str, unit: str, budget: int) -> list[int]:
    """Return the picks of the slow form of a strategy."""
    costs = COSTS[unit]
    if strategy in ("cluster", "d4"):
        return filled(cluster_oracle() if strategy == "cluster" else d4_oracle(), costs, budget)
    if strategy == "car":
        return filled(car_oracle(costs, budget), costs, budget)
    slow: dict[str, Callable[[Sequence[int], int], list[int]]] = {
        "rds": rds_oracle,
        "facility_location": facility_oracle,
        "novel_select": novel_oracle,
        "mig": mig_oracle,
    }
    return slow[strategy](costs, budget)


@pytest.mark.parametrize("unit", ["samples", "bytes"])
@pytest.mark.parametrize("strategy", NAMES)
def test_picks_equal_those_of_the_oracle(strategy: str, unit: str) -> None:
    """In order; rows and workers may come as they like."""
    config = config_of(strategy, unit)
    expected = oracle(strategy, unit, config.budget)
    assert len(expected) >= 10
    assert select_by(config).picks == expected
    shuffled = np.random.default_rng(5).permutation(NUM).tolist()
    selection = select_by(config, shuffled, workers=3)
    assert [shuffled[pick] for pick in selection.picks] == expected


@pytest.mark.parametrize("strategy", NAMES)
def test_empty_samples_are_picked_last(strategy: str) -> None:
    """Those without a vector come by id after all others, by whatever order these come."""
    config = config_of(strategy, budget_samples=NUM - 1)
    picks = select_by(config).picks
    assert picks == oracle(strategy, "samples", NUM - 1)
    assert len(set(picks)) == NUM - 1
    if strategy != "car":
        assert picks[-2:] == WITHOUT[:2]


@pytest.fixture
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, heads and rounds so small that each pool has many."""
    monkeypatch.setattr(of_vectors.blocks, "__defaults__", (7,))
    monkeypatch.setattr(d4, "_ROWS_AT_A_TIME", 3)
    monkeypatch.setattr(novel_select, "_ROWS_AT_A_TIME", 5)
    monkeypatch.setattr(novel_select, "_REFRESHED", 2)
    monkeypatch.setattr(novel_select, "PICKS_PER_ROUND", 4)
    monkeypatch.setattr(rds, "PICKS_PER_ROUND", 4)
    monkeypatch.setattr(rds, "_TARGETS_AT_A_TIME", 2)
    monkeypatch.setattr(facility_location, "_ROWS_AT_A_TIME", 5)
    monkeypatch.setattr(of_vectors, "PICKS_PER_ROUND", 4)


@pytest.mark.usefixtures("_small_steps")
@pytest.mark.parametrize("unit", ["samples", "bytes"])
@pytest.mark.parametrize("strategy", NAMES)
def test_picks_do_not_depend_on_blocks(strategy: str, unit: str) -> None:
    """Many small rounds pick what few large ones do."""
    config = config_of(strategy, unit)
    assert select_by(config).picks == oracle(strategy, unit, config.budget)


@pytest.mark.usefixtures("_small_steps")
@pytest.mark.parametrize("strategy", ["novel_select", "facility_location", "rds", "mig"])
def test_a_stopped_selection_goes_on_and_picks_the_same(strategy: str, tmp_path: Path) -> None:
    """From its checkpoint, with the same scores of what is picked."""
    config = config_of(strategy)
    expected = select_by(config)
    path = tmp_path / "selection.npz"

    def stop(progress: Progress) -> None:
        if progress.round == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select_by(config, checkpoint=path, progress=stop)
    assert path.exists()
    again = select_by(config, checkpoint=path)
    assert again.picks == expected.picks
    picked = pl.col("fate") == "picked"
    assert again.ledger.filter(picked).equals(expected.ledger.filter(picked))


@pytest.mark.parametrize("strategy", NAMES)
def test_a_mixture_and_quotas_are_held(strategy: str) -> None:
    """Of 30 samples each source gets 10 in an equal mixture, and no more than its maximum."""
    equal = config_of(strategy, mixture="equal", budget_samples=30)
    quota = config_of(strategy, quotas={"a": (None, 0.1)}, budget_samples=30)
    for config, counts in ((equal, {"a": 10, "b": 10, "c": 10}), (quota, {"a": 3})):
        sources = TABLE[select_by(config).picks]["source"].to_list()
        assert {name: sources.count(name) for name in counts} == counts
        assert len(sources) == 30


@pytest.mark.parametrize("strategy", NAMES)
def test_the_seed_decides_where_something_is_random(strategy: str) -> None:
    """Another one gives other picks, but for what has nothing to draw."""
    picks = {tuple(select_by(config_of(strategy, seed=seed)).picks) for seed in (0, 1, 2**40)}
    assert (len(picks) > 1) == (strategy not in ("rds", "facility_location", "mig"))


@pytest.mark.parametrize("strategy", NAMES)
def test_odd_pools_are_selected_from(strategy: str) -> None:
    """Without any vector, with one, and with none but equal ones."""
    config = config_of(strategy, budget_samples=9)
    if strategy != "mig":
        none = select_by(config, empty=range(NUM))
        assert none.picks == BY_ID[:9] or strategy == "car"
    assert len(select_by(config, empty=range(1, NUM)).picks) == 9
    assert len(select_by(config, vectors=np.ones((NUM, 8), np.float32)).picks) == 9
    assert len(select_by(config, rows=[4]).picks) == 1
    assert len(select_by(config, rows=[]).picks) == 0


@pytest.mark.parametrize("strategy", NAMES)
def test_trace_tells_why(strategy: str) -> None:
    """A sentence for a pick, and one for what was not reached, beside the last picks if it may."""
    selection = select_by(config_of(strategy))
    for fate in ("picked", "never_reached"):
        row = selection.ledger.filter(fate=fate).row(0, named=True)
        words = explain_fate(row, selection.manifest)
        assert "{" not in words
        facts = {**selection.manifest["config"], **row}
        assert words.startswith(strategies[strategy].words[fate].format(**facts))
        end = strategies[strategy].unmeasured or " (highest first)"
        assert words.endswith(end) == (fate == "never_reached")


def test_quality_counts_in_facility_location() -> None:
    """Quality to its power is added to each gain."""
    config = config_of("facility_location", quality="q", quality_power=2)
    quality = [max(own**2, 1e-12) for own in QUALITY]
    expected = facility_oracle(COSTS["samples"], 25, quality)
    assert select_by(config).picks == expected
    assert expected != oracle("facility_location", "samples", 25)


def test_mig_weighs_by_quality_and_joins_tags_that_are_alike() -> None:
    """Another power, another least cosine: other picks, those of the oracle."""
    whole = oracle("mig", "bytes", 2500)
    for options in ({"quality_power": 2}, {"tag_cosine": 0.5}, {"tag_cosine": 1}):
        config = config_of("mig", "bytes", **options)
        quality = [own ** options.get("quality_power", 1) for own in QUALITY]
        expected = mig_oracle(COSTS["bytes"], 2500, options.get("tag_cosine", 0.9), quality)
        assert select_by(config).picks == expected != whole


def test_mig_takes_forms_of_a_tag_for_one() -> None:
    """Case and white space make no other tag, nor does a sample that has it in two forms."""
    forms = [
        [form for tag in own for form in (tag.upper(), tag.replace(" ", "\t "))] for own in TAGS_OF
    ]
    assert select_by(config_of("mig"), tags=forms).picks == oracle("mig", "samples", 25)


def test_mig_asks_for_tags() -> None:
    """Without any it names the field; a pool of none has none to pick from."""
    with pytest.raises(UserError, match="signals: tags: field: none of 72 samples has tags in"):
        select_by(config_of("mig"), empty=range(NUM))


def real_samples(shared_folder: Path) -> tuple[pl.DataFrame, list[bytes]]:
    """Return 1,000 real samples by id, and their texts."""
    file = shared_folder / "pools" / "sft" / "alpaca_5_percent.json.gz"
    table = zip_pipeline.read(str(file)).samples.head(1000).sort("sample_id")
    return table, texts_of(table, "sft")


def dense_greedy(
    texts: Sequence[bytes], gains: Callable[[list[int]], NDArray[np.float64]], per_byte: bool
) -> list[int]:
    """Pick the highest gain, or gain per byte, of what fits 20,000 bytes; all are made anew."""
    costs, left = np.array([len(text) for text in texts]), 20_000
    picks: list[int] = []
    while (fits := (costs <= left) & ~np.isin(np.arange(len(costs)), picks)).any():
        values = gains(picks) / (costs if per_byte else 1)
        picks.append(int(np.where(fits, values, -np.inf).argmax()))
        left -= costs[picks[-1]]
    return picks


def select_real(
    strategy: str, real: tuple[pl.DataFrame, list[bytes]], **known: object
) -> list[int]:
    """Return the picks of 20,000 bytes; ``known`` is what the candidates bring."""
    config = config_of(strategy, "bytes", budget_bytes=20_000)
    with TemporaryTexts.write([real[1]]) as written:
        candidates = Candidates(real[0], written, target=[b"told"], **known)
        return select_candidates(candidates, "sft", config).picks


@pytest.mark.slow
def test_mig_equals_a_dense_form_on_real_samples(shared_folder: Path) -> None:
    """With made-up tags and qualities."""
    real = real_samples(shared_folder)
    random = np.random.default_rng(7)
    names = [f"tag {number:03}" for number in range(120)]
    centres = random.normal(size=(30, 16))[np.arange(120) % 30]
    vectors = exact(centres + random.normal(size=(120, 16)) / 4)
    tags, quality = tagged(1000, 8, names), random.random(1000)
    near = cosines(vectors, vectors)
    np.fill_diagonal(near, 1)
    edges = np.where(near >= 0.9, near, 0)
    assert 200 < np.count_nonzero(edges) < 2000
    has = np.array([[name in own for name in names] for own in tags])
    tells = (has * quality[:, None]) @ (edges / edges.sum(axis=0))

    def gains(picks: list[int]) -> NDArray[np.float64]:
        prices = 0.8 * (tells[picks].sum(axis=0) + 1e-6) ** -0.2
        return (tells @ prices).astype(np.float32).astype(np.float64)

    signals = SignalTables(
        {"tags": "made up", "embedding": "made up"},
        {"tags": pl.DataFrame({"tags": tags})},
        {},
        column_of(vectors).with_columns(tag=pl.Series(names)),
    )
    picks = select_real("mig", real, quality=pl.Series(quality), signals=signals)
    assert picks == dense_greedy(real[1], gains, per_byte=True)
    assert len(picks) > 50


def dense_gains(
    strategy: str, vectors: Vector, target: Vector, ids: Sequence[str]
) -> Callable[[list[int]], NDArray[np.float64]]:
    """Return what gives the gain of each sample beside picks, from all pairs."""
    near = cosines(vectors, vectors)
    if strategy == "rds":
        to_target = cosines(target, vectors)
        return lambda picks: to_target[len(picks) % len(target)]
    if strategy == "facility_location":
        steps = np.rint(near.clip(0, 1) * 65535)
        return lambda picks: (steps - steps[picks].max(axis=0, initial=0)).clip(0).sum(axis=1)
    distances = np.maximum(1 - near, 0)
    others = 1 - cosines(vectors, np.unique(vectors, axis=0))
    density = 1 / np.sqrt(np.sort(others, axis=1)[:, 1:11].mean(axis=1) + 1e-9)
    weighted = distances * (density[:, None] + density)
    first = random_order(ids, 3)

    def novelty(picks: list[int]) -> NDArray[np.float64]:
        if not picks:
            return -np.argsort(first).astype(np.float64)
        return (np.sort(weighted[:, picks], axis=1) / np.arange(1, len(picks) + 1)).mean(axis=1)

    return novelty


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wordllama") is None, reason="needs wordllama")
@pytest.mark.parametrize("strategy", ["rds", "facility_location", "novel_select"])
def test_picks_equal_a_dense_form_on_real_samples(strategy: str, shared_folder: Path) -> None:
    """By the vectors of the default embedder; seven samples are the target."""
    table, texts = real_samples(shared_folder)
    said = table.select(contents_text("sft"))[:, 0].to_list()
    vectors = embedder(EmbeddingSettings())(said)
    target = vectors[::150]
    gains = dense_gains(strategy, exact(vectors), exact(target), table["sample_id"].to_list())
    tables = {"embedding": column_of(vectors)}
    signals = SignalTables({"embedding": "real"}, tables, {"embedding": column_of(target)})
    picks = select_real(strategy, (table, texts), signals=signals)
    assert picks == dense_greedy(texts, gains, per_byte=strategy == "facility_location")
    assert len(picks) > 20


def test_facility_location_represents_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more samples than that a draw; another seed draws others."""
    monkeypatch.setattr(facility_location, "MOST_POINTS", 12)
    first, second = (select_by(config_of("facility_location", seed=seed)).picks for seed in (1, 2))
    assert first != second


def test_novel_select_draws_its_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not drawn comes after the candidates, in the order of the draw."""
    monkeypatch.setattr(novel_select, "MOST_CANDIDATES", 20)
    monkeypatch.setattr(novel_select, "MOST_NEIGHBOURS", 15)
    order = [HAS_VECTOR[place] for place in random_order([IDS[row] for row in HAS_VECTOR], 3)]
    picks = select_by(config_of("novel_select", budget_samples=NUM - 1)).picks
    assert picks[0] == order[0]
    assert sorted(picks[:20]) == sorted(order[:20])
    assert picks[20:] == [*order[20:], *WITHOUT[:2]]


def test_what_fits_no_more_is_not_weighed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a budget of bytes most samples are too long; a pick looks twice at most."""
    num_looks = 0
    most_novel = novel_select.Novelty.most_novel

    def counted(self: novel_select.Novelty, left: NDArray[np.bool_]) -> int:
        nonlocal num_looks
        num_looks += 1
        return most_novel(self, left)

    monkeypatch.setattr(novel_select.Novelty, "most_novel", counted)
    picks = select_by(config_of("novel_select", "bytes", budget_bytes=700)).picks
    assert NUM - len(picks) > 30
    assert num_looks <= 2 * len(picks)


def test_cosines_have_no_rounding_error() -> None:
    """Whatever the block, and summed up as well."""
    vectors = exact(np.random.default_rng(0).normal(size=(300, 256)))
    found = cosines(vectors, vectors)
    assert found[7, 9] == cosine(vectors[7], vectors[9])
    assert found[200:201, 5:9].tolist() == cosines(vectors[200:201], vectors[5:9]).tolist()
    positive = np.maximum(found[3], 0)
    assert positive.sum() == math.fsum(positive.tolist()) == positive[::-1].sum()
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-4


def test_clusters_are_those_of_the_nearest_centroid() -> None:
    """Far groups are not mixed, and each row is with the centroid of the highest cosine."""
    random = np.random.default_rng(4)
    kinds = np.repeat(np.arange(7), 14)
    centres = np.eye(7, 16)[kinds]
    vectors = exact(centres + random.normal(size=centres.shape) * 0.01)
    found = clusters_of(vectors, 0, "a test")
    for label in np.unique(found.labels):
        assert len(set(kinds[found.labels == label])) >= 1
    centroids = of_vectors._centroids(vectors, 0)
    assert len(centroids) == 7
    for row, vector in enumerate(vectors):
        near = [cosine(vector, centroid) for centroid in centroids]
        assert found.labels[row] == near.index(max(near))
        assert found.cosines[row] == max(near)


@pytest.mark.parametrize(
    ("num_rows", "expected"), [(0, 1), (1, 1), (17, 2), (80_000, 200), (10_000_000, 1024)]
)
def test_the_number_of_clusters(num_rows: int, expected: int) -> None:
    """The square root of half the rows, at most 1,024."""
    assert of_vectors.num_clusters(num_rows) == expected


def test_near_duplicates_go_but_for_the_farthest() -> None:
    """Of three alike the two nearer to the centroid repeat the farthest."""
    vectors = exact(np.array([[1, 0.1], [1, 0.11], [1, 0.12], [0, 1]]))
    clusters = Clusters(np.array([0, 0, 0, 1]), np.array([0.9, 0.7, 0.8, 1.0]))
    repeats = d4.redundancies(vectors, clusters)
    assert repeats[1] == 0
    assert repeats[3] == 0
    assert (repeats[[0, 2]] > 0.999).all()


def test_far_members_of_a_large_cluster_are_not_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is compared with the few next farther ones, as in a loop over them."""
    monkeypatch.setattr(d4, "MOST_FARTHER", 4)
    monkeypatch.setattr(d4, "_ROWS_AT_A_TIME", 3)
    vectors = EXACT[HAS_VECTOR]
    clusters = clusters_of(vectors, 1, "a test")
    expected = np.zeros(len(vectors))
    for label in range(max(clusters.labels) + 1):
        own = [row for row in range(len(vectors)) if clusters.labels[row] == label]
        own.sort(key=lambda row: (clusters.cosines[row], row))
        for place, row in enumerate(own):
            farther = own[max(place - 4, 0) : place]
            near = [cosine(vectors[row], vectors[other]) for other in farther]
            expected[row] = max([0.0, *near])
    assert np.bincount(clusters.labels).max() > 8
    assert d4.redundancies(vectors, clusters).tolist() == expected.tolist()


def test_clusters_are_learnt_from_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many vectors; there are as many clusters, and all rows are in the nearest one."""
    vectors = exact(made_up(600, 5))
    whole = of_vectors._centroids(vectors, 3)
    monkeypatch.setattr(of_vectors, "MOST_LEARNT", 100 * 8)
    drawn = of_vectors._centroids(vectors, 3)
    assert whole.shape == drawn.shape == (17, 8)
    assert (whole != drawn).any()
    assert drawn.tolist() == of_vectors._centroids(vectors, 3).tolist()
    found = clusters_of(vectors, 3, "a test")
    near = cosines(vectors, drawn)
    assert found.labels.tolist() == near.argmax(axis=1).tolist()
    assert found.cosines.tolist() == near.max(axis=1).tolist()


def test_the_nearest_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all rows at once, or of some and then of others; equal vectors go by the lowest row."""
    vectors, target = EXACT[HAS_VECTOR], exact(TARGET)
    rows = np.arange(0, len(vectors), 2)
    monkeypatch.setattr(rds, "PICKS_PER_ROUND", 20)
    whole = rds._nearest(vectors, target, rows)
    order = [sorted(rows, key=lambda row: (-cosine(vectors[row], own), row)) for own in target]
    assert whole.tolist() == [own[:20] for own in order]
    monkeypatch.setattr(rds, "_ROWS_AT_A_TIME", 7)
    monkeypatch.setattr(rds, "_TARGETS_AT_A_TIME", 2)
    assert rds._nearest(vectors, target, rows).tolist() == whole.tolist()


def test_large_targets_know_the_order_of_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds end sooner then, and the picks are the same."""
    picks = select_by(config_of("rds")).picks
    monkeypatch.setattr(rds, "_MOST_NEAREST", 10)
    monkeypatch.setattr(rds, "_LEAST_NEAREST", 2)
    selection = select_by(config_of("rds"))
    assert selection.picks == picks
    assert selection.told_of_picks["round"].max() > 1


def test_vectors_of_a_pool_are_not_held() -> None:
    """A strategy looks at some of them at a time."""
    num, width = 1 << 15, 128
    vectors = np.random.default_rng(1).normal(size=(num, width)).astype(np.float32)
    table = pl.DataFrame({"vector": pl.Series(vectors).cast(pl.List(pl.Float32))})
    ids = [f"{number:032x}" for number in range(num)]
    with TemporaryTexts.write([[b"x"] * num]) as texts:
        signals = SignalTables({}, {"embedding": table}, {})
        candidates = Candidates(pl.DataFrame({"sample_id": ids}), texts, signals=signals)
        pool = Measured(candidates, None, np.ones(num), np.ones(num, np.int64))
        # What is imported for the first clusters of a process is none of their memory.
        clusters_of(EXACT, 1, "a test")
        tracemalloc.start()
        embedded = of_vectors.Embedded.of(pool)
        clusters = clusters_of(of_vectors.PartOfRows(embedded.vectors, np.arange(99)), 1, "a test")
        rds._highest(embedded.vectors, exact(vectors[:5]))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(clusters.labels) == 99
    assert embedded.vectors[np.array([7, 3])].tolist() == exact(vectors[[7, 3]]).tolist()
    assert peak < vectors.nbytes


def test_without_scikit_learn_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names strategy, library and extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"strategy d4 needs sklearn.*zip-pipeline\[signals\]"):
        clusters_of(EXACT, 0, "strategy d4")


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("car", "quality: car takes the best samples first, and got none; name a number of the"),
        ("rds", "target: rds selects by the samples of a file, and got none; name one whose"),
        ("mig", "quality: mig weighs by it what a sample tells, and got none; name a number of"),
    ],
)
def test_what_is_needed_is_asked_for(strategy: str, message: str) -> None:
    """Before anything is measured."""
    with pytest.raises(UserError, match=message):
        SelectionConfig(strategy=strategy, budget_samples=3)


def test_a_target_without_words_is_refused() -> None:
    """It has nothing to be near to."""
    with pytest.raises(UserError, match="target: none of its samples has a word"):
        select_by(config_of("rds"), target=np.zeros((2, 8), np.float32))


@pytest.mark.skipif(find_spec("wordllama") is None, reason="needs wordllama")
def test_records_are_selected_by_what_they_say() -> None:
    """With the default embedder clusters of five topics give some of each."""
    chosen = zip_pipeline.select(sft_records(40), strategy="cluster", budget_samples=12)
    assert chosen.subset.height == 12
    assert chosen.manifest["signals"]["embedding"].startswith("wordllama ")
    again = zip_pipeline.select(sft_records(40), strategy="cluster", budget_samples=12)
    assert again.subset["sample_id"].to_list() == chosen.subset["sample_id"].to_list()


def test_too_many_joined_tags_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the option that joins fewer."""
    monkeypatch.setattr(mig, "MOST_JOINED", 20)
    with pytest.raises(UserError, match=r"tag_cosine: at 0.1 more than 20 pairs of the 15 tags"):
        select_by(config_of("mig", tag_cosine=0.1))


@pytest.mark.skipif(find_spec("wordllama") is None, reason="needs wordllama")
def test_too_many_tags_are_not_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the field."""
    monkeypatch.setattr("zip_pipeline.workflow.signals.MOST_EMBEDDED_TAGS", 2)
    records = [
        {"prompt": f"{n}?", "completion": f"{n}.", "tags": [f"tag {n}"], "q": 1} for n in range(9)
    ]
    with pytest.raises(UserError, match="field: more than 2 different tags are too many to"):
        zip_pipeline.select(records, strategy="mig", budget_samples=2, quality="q")


@pytest.mark.skipif(find_spec("wordllama") is None, reason="needs wordllama")
def test_tags_of_records_are_embedded_and_samples_are_not() -> None:
    """The manifest tells by what, and other settings of the embedder are another configuration."""
    records = [
        record | {"tags": ["Rivers", f"t{n % 7}"]} for n, record in enumerate(sft_records(40))
    ]
    options = {"strategy": "mig", "budget_samples": 12, "quality": "extra.n"}
    chosen = zip_pipeline.select(records, **options)
    assert chosen.subset.height == 12
    assert chosen.manifest["signals"].keys() == {"tags", "embedding"}
    assert chosen.manifest["config"]["signals"] == {"tags": {}, "embedding": {}}
    missing = {"embedding": {"model": "/no/such/model", "revision": "x"}}
    with pytest.raises(UserError, match="embedding: model: cannot load '/no/such/model'"):
        zip_pipeline.select(records, **options, signals=missing)
