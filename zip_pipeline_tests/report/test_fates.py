"""Fates in words."""

import pytest

from zip_pipeline.report.fates import explain_fate
from zip_pipeline.selection.strategies import strategies

_CONFIG = {"strategy": "zip", "budget_tokens": 900, "k1": 50, "k2": 20, "k3": 10, "seed": 7}
_ROW = {
    "sample_id": "ab",
    "batch": "b.jsonl",
    "source": "web",
    "num_bytes": 4200,
    "num_tokens": 1234,
    "round": 3,
    "rank": 12,
    "pi": 1.43456,
    "duplicate_of_batch": "a.jsonl",
    "duplicate_of_file": "part.jsonl",
    "duplicate_of_row": 17,
}


@pytest.mark.parametrize(
    ("fate", "changes", "words"),
    [
        pytest.param(
            "picked",
            {},
            "picked as number 12, in round 3: the least redundant left on the shortlist (last "
            "known ratio 1.435)",
            id="picked",
        ),
        pytest.param(
            "picked", {"strategy": "random"}, "drawn as number 12 with seed 7", id="picked randomly"
        ),
        pytest.param(
            "quota",
            {"mixture": "natural"},
            "others went before it, and its source web had its share in the natural mixture",
            id="share of a mixture",
        ),
        pytest.param(
            "shortlisted",
            {},
            "left on the shortlist (the 20 least redundant candidates), last in round 3, with "
            "ratio 1.435: the round's picks were less redundant with each other",
            id="shortlisted",
        ),
        pytest.param(
            "candidate",
            {},
            "left among the candidates (the 50 lowest known ratios), last in round 3: its ratio "
            "1.435, measured with what was selected, was too high for the shortlist of 20",
            id="candidate",
        ),
        pytest.param(
            "never_reached",
            {},
            "never looked at: its ratio alone, 1.435, was not among the 50 lowest before the "
            "budget was used",
            id="never reached",
        ),
        pytest.param(
            "never_reached",
            {"strategy": "random"},
            "not drawn with seed 7 before the budget was used; chance alone decides which come "
            "first",
            id="not drawn",
        ),
        pytest.param(
            "over_budget",
            {},
            "others went before it, and its 1,234 tokens did not fit what was left of the budget",
            id="over a budget of tokens",
        ),
        pytest.param(
            "over_budget",
            {"budget_tokens": None, "budget_samples": 5},
            "others went before it, and it did not fit what was left of the budget",
            id="over a budget of samples",
        ),
        pytest.param(
            "quota",
            {"quotas": {"web": [None, 0.125]}},
            "others went before it, and its source web had its maximum of 12.5%",
            id="maximum of its source",
        ),
        pytest.param(
            "quota",
            {"quotas": {"books": [0.5, None]}},
            "others went before it, and what was left was reserved for other sources' minimum",
            id="minimum of others",
        ),
        pytest.param(
            "duplicate",
            {},
            "an exact copy of part.jsonl, row 17 in batch a.jsonl, which took part in its place",
            id="duplicate",
        ),
        pytest.param(
            "held_out", {}, "kept for evaluation, so no version may pick it", id="held out"
        ),
    ],
)
def test_explain_fate_says_why(fate: str, changes: dict[str, object], words: str):
    """Each fate is told with the figures that decided it."""
    assert explain_fate({**_ROW, "fate": fate}, {"config": _CONFIG | changes}) == words


def test_explain_fate_names_the_cluster_in_which_a_sample_competed():
    """Its share, not one of the source, was used up."""
    row = {**_ROW, "fate": "quota", "competed_in": "cluster 07"}
    assert explain_fate(row, {"config": _CONFIG | {"mixture": "equal"}}) == (
        "others went before it, and its cluster had its share in the equal mixture; it competed in "
        "cluster 07"
    )


def test_explain_fate_of_a_copy_inside_its_batch_leaves_the_batch_out():
    """A copy in the same batch needs no batch name."""
    row = {**_ROW, "fate": "duplicate", "batch": "a.jsonl"}
    assert explain_fate(row, {"config": _CONFIG}).startswith(
        "an exact copy of part.jsonl, row 17, which"
    )


def test_explain_fate_without_a_ratio_says_unknown():
    """A missing ratio is said, not printed as None."""
    row = {**_ROW, "fate": "never_reached", "pi": None}
    assert "its ratio alone, unknown," in explain_fate(row, {"config": _CONFIG})


def test_explain_fate_refuses_an_unknown_fate():
    """A fate of another version of the package is an error that names the known ones."""
    with pytest.raises(ValueError, match=r"sample ab: got fate 'lost'; known are candidate, cont"):
        explain_fate({**_ROW, "fate": "lost"}, {"config": _CONFIG})


@pytest.mark.parametrize(("fate", "is_told"), [("candidate", True), ("picked", False)])
def test_explain_fate_names_the_shard_whose_rounds_it_tells_of(fate: str, is_told: bool):
    """Round and ratio of what no shard picked are those of its shard, of a pick the last ones."""
    row = _ROW | {"fate": fate, "shard": 2}
    words = explain_fate(row, {"config": _CONFIG | {"num_shards": 4}})
    assert words.startswith("in shard 2 (from 0) of 4: ") == is_told
    assert words.endswith(explain_fate(row | {"shard": None}, {"config": _CONFIG}))


_LAST = {
    "of_all": {"rank": 812, "round": 9, "pi": 1.9},
    "by_group": {"books": {"rank": 812, "round": 9, "pi": 1.9}, "web": {"rank": 640, "pi": 2.1}},
}
_ENDED = {"config": _CONFIG, "num_rounds": 9, "unused_budget": 37, "last_picks": _LAST}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"fate": "over_budget"},
            "others went before it, and its 1,234 tokens did not fit what was left of the budget "
            "(37 in the end); it was passed over in round 3, its last known ratio was 1.435; the "
            "last pick, number 812, had 1.900, and the last of its source web, number 640, 2.100 "
            "(lowest first)",
            id="no budget left",
        ),
        pytest.param(
            {"fate": "never_reached", "source": "books"},
            "never looked at: its ratio alone, 1.435, was not among the 50 lowest before the "
            "budget was used; the last pick, number 812, had 1.900 (lowest first)",
            id="the last pick is of its source",
        ),
        pytest.param(
            {"fate": "shortlisted", "source": "mail"},
            "left on the shortlist (the 20 least redundant candidates), last in round 3, with "
            "ratio 1.435: the round's picks were less redundant with each other; the last pick, "
            "number 812, had 1.900, and none of its source mail was picked (lowest first)",
            id="no pick of its source",
        ),
    ],
)
def test_explain_fate_tells_how_near_a_sample_came_to_the_last_picks(
    changes: dict[str, object], words: str
) -> None:
    """Its own figure stands beside that of the last pick of all, and of the last of its source."""
    assert explain_fate(_ROW | changes, _ENDED) == words


def test_explain_fate_compares_scores_where_the_strategy_has_some() -> None:
    """A gain goes highest first, and one that was never computed is unknown."""
    last = {"of_all": {"rank": 8, "score": 0.29}, "by_group": {"web": {"rank": 5, "score": 0.42}}}
    config = {"strategy": "coverage", "budget_samples": 9, "mixture": "natural"}
    manifest = {"config": config, "num_rounds": 1, "last_picks": last}
    words = (
        "others went before it, and its source web had its share in the natural mixture; its last "
        "known gain was {}; the last pick, number 8, had 0.29, and the last of its source web, "
        "number 5, 0.42 (highest first)"
    )
    for score, shown in ((0.31, "0.31"), (None, "unknown")):
        row = _ROW | {"fate": "quota", "score": score}
        assert explain_fate(row, manifest) == words.format(shown)


def test_explain_fate_compares_nothing_where_no_figure_decided() -> None:
    """Not for what took no part, nor in an old manifest."""
    told = [
        explain_fate(_ROW | {"fate": "over_budget"}, {"config": _CONFIG, "unused_budget": 37}),
        explain_fate(_ROW | {"fate": "noise", "noise": "its answer is base64"}, _ENDED),
    ]
    assert not any("last pick" in words for words in told)


@pytest.mark.parametrize("fate", ["over_budget", "quota"])
@pytest.mark.parametrize(
    ("strategy", "shard", "words"),
    [
        ("random", None, "; chance alone decides which come first"),
        ("random_lengths", 1, "; lengths take turns as the target has them, and of one length"),
        ("cluster", None, "; clusters take turns, so no figure compares it with the last pick"),
        ("car", None, "; after the best of all clusters take turns, so no figure compares it"),
        ("zip", 1, "; each shard is picked from by itself first, so what was measured in one"),
    ],
)
def test_explain_fate_says_why_no_figure_tells_how_near_it_came(
    fate: str, strategy: str, shard: int | None, words: str
) -> None:
    """Chance, turns, or a shard of its own."""
    manifest = _ENDED | {"config": _CONFIG | {"strategy": strategy, "mixture": "natural"}}
    told = explain_fate(_ROW | {"fate": fate, "shard": shard}, manifest)
    assert words in told
    assert "number 812" not in told


def test_each_strategy_says_what_decides() -> None:
    """A figure, or what there is in its place."""
    assert [s.name for s in strategies if bool(s.measure) == bool(s.unmeasured)] == []
