"""Rows that hold several samples: trees of messages, and all pairs of ranked answers."""

import json
import random
from typing import Any

import pytest

from zip_pipeline.ingest import gathering
from zip_pipeline.ingest import rows as rows_module
from zip_pipeline.ingest.formats import FORMATS
from zip_pipeline.ingest.gathering import Gathered
from zip_pipeline.ingest.ingest import ingest_rows
from zip_pipeline.ingest.rows import RawRow, ReadLimits
from zip_pipeline.pool import parts
from zip_pipeline.pool.batches import IngestResult
from zip_pipeline.samples import Stage
from zip_pipeline_tests.ingest.test_reading import taken_in


def message(name: str, *replies: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a message of a tree; those whose names begin with a are the assistant's."""
    role = "assistant" if name.startswith("a") else "prompter"
    said = {"message_id": name, "text": name, "role": role, "review_result": True}
    return {**said, "deleted": False, "rank": None, **fields, "replies": list(replies)}


ROOT = message(
    "u1",
    message("a1", message("u2", message("a2", rank=1), message("a3", rank=0)), rank=0),
    message("a4", message("u3"), rank=1, synthetic=True),
    message("a5", message("u4", message("a6")), deleted=True, rank=2),
    message("a7", review_result=False),
    message("a8", review_result=None, rank=3),
)
THREADS = ["u1 a1 u2 a2", "u1 a1 u2 a3", "u1 a4", "u1 a8"]
REFUSED = {
    "u3": "no_final_assistant",
    "a5": "failed_review",
    "u4": "failed_review",
    "a6": "failed_review",
    "a7": "failed_review",
}


def as_table(root: dict[str, Any], parent: str | None = None) -> list[dict[str, Any]]:
    """Return the messages of a tree as rows that name their parents."""
    alone = {name: value for name, value in root.items() if name != "replies"}
    below = [row for reply in root["replies"] for row in as_table(reply, root["message_id"])]
    return [{**alone, "parent_id": parent}, *below]


def said(result: IngestResult, column: str = "turns") -> list[str]:
    """Return the contents of each sample."""
    return [" ".join(turn["content"] for turn in turns) for turns in result.samples[column]]


def refused(result: IngestResult) -> dict[str, str]:
    """Return why each message is refused."""
    names = [json.loads(raw)["message_id"] for raw in result.quarantine["raw"]]
    return dict(zip(names, result.quarantine["reason"], strict=True))


def in_layout(layout: str, stage: Stage = "sft", **options: Any) -> IngestResult:
    """Return what becomes of the tree above, nested or as a table."""
    tree = {"message_tree_id": "t", "prompt": ROOT, "lang": "de"}
    return taken_in([tree] if layout == "tree" else as_table(ROOT), stage, **options)


@pytest.mark.parametrize("layout", ["tree", "table"])
def test_a_tree_gives_all_paths_that_pass_the_review(layout: str) -> None:
    """From the root to each last answer; every message is in a path or refused by name."""
    result = in_layout(layout)
    assert said(result) == THREADS
    assert set(result.samples["format"]) == {f"message_{layout}"}
    assert refused(result) == REFUSED
    assert result.num_rows_read == len(THREADS) + len(REFUSED)
    assert json.loads(result.samples["raw"][2])["messages"][1]["synthetic"] is True


@pytest.mark.parametrize("stage", ["sft", "preference"])
@pytest.mark.parametrize("layout", ["tree", "table"])
def test_rows_of_a_tree_are_read_again_as_they_were_made(layout: str, stage: Stage) -> None:
    """What a selection exports of them is what was picked."""
    made = in_layout(layout, stage, pairs="all").samples
    again = taken_in([json.loads(raw) for raw in made["raw"]], stage).samples
    assert again["sample_id"].to_list() == made["sample_id"].to_list()
    assert set(again["format"]) == {"messages" if stage == "sft" else "ranked_answers"}


def test_a_broken_row_does_not_part_a_table() -> None:
    """The messages after it still find their parents; so do those of another file."""
    table = as_table(message("u1", message("a1")))
    rows = [
        RawRow("f", 1, "", table[0]),
        RawRow("f", 2, "{", None, "invalid_json"),
        RawRow("f", 3, "", table[1]),
        RawRow("g", 1, "", table[1]),
    ]
    result = ingest_rows(rows, "sft", batch="b")
    assert said(result) == ["u1 a1"]
    assert result.quarantine.select("source_file", "reason").rows() == [
        ("f", "invalid_json"),
        ("g", "missing_field"),
    ]


def test_what_a_tree_says_beside_its_messages_is_listed() -> None:
    """The fields of the tree and of its messages, but for those that made the row."""
    beside = {"lang": 4, "message_tree_id": 4}
    of_messages = {"messages[].rank": 4, "messages[].synthetic": 1}
    assert in_layout("tree").unread == beside | of_messages
    assert in_layout("table").unread == of_messages
    ranked = in_layout("table", "preference").unread
    assert ranked == {"prompt[].rank": 1, "answers[].text": 1, "answers[].synthetic": 1}


@pytest.mark.parametrize("layout", ["tree", "table"])
def test_replies_to_a_message_are_ranked(layout: str) -> None:
    """The best (0) against the worst, or all pairs; what cannot be ranked is refused."""
    result = in_layout(layout, "preference")
    assert list(zip(*(said(result, c) for c in ("prompt", "chosen", "rejected")), strict=True)) == [
        ("u1", "a1", "a8"),
        ("u1 a1 u2", "a3", "a2"),
    ]
    assert refused(result) == REFUSED | {"u3": "no_preference"}
    every = in_layout(layout, "preference", pairs="all")
    assert list(zip(said(every, "chosen"), said(every, "rejected"), strict=True)) == [
        ("a1", "a4"),
        ("a1", "a8"),
        ("a4", "a8"),
        ("a3", "a2"),
    ]
    assert refused(every) == REFUSED | {"u3": "no_preference"}


def test_a_message_whose_place_is_unknown_is_refused() -> None:
    """Without its parent, with an id that came before, or in a circle; the others are read."""
    table = as_table(message("u1", message("a1")))
    lost = [
        {"message_id": "a2", "parent_id": "u9", "role": "assistant", "text": "t"},
        {"message_id": "u3", "parent_id": "a3", "role": "prompter", "text": "t"},
        {"message_id": "a3", "parent_id": "u3", "role": "assistant", "text": "t"},
        {"message_id": ["a"], "parent_id": None, "role": "prompter", "text": "t"},
    ]
    result = taken_in([*lost, table[1], table[0], table[0]])
    assert said(result) == ["u1 a1"]
    assert result.samples["source_row"].to_list() == [5]
    assert dict(zip(result.quarantine["source_row"], result.quarantine["detail"], strict=True)) == {
        1: "its parent u9 is not there",
        2: "its parents lead in a circle",
        3: "its parents lead in a circle",
        4: "expected message_id",
        7: "message_id u1 again",
    }


def test_a_tree_is_not_read_deeper_than_a_conversation_may_be() -> None:
    """However long a chain of messages is, it costs no more than its rows."""
    rows = [
        {
            "message_id": f"{n}",
            "parent_id": f"{n - 1}" if n else None,
            "role": "assistant" if n % 2 else "prompter",
            "text": f"{n}",
        }
        for n in range(5_000)
    ]
    result = taken_in(rows)
    assert said(result) == [" ".join(map(str, range(64)))]
    assert set(result.quarantine["reason"]) == {"nested_too_deep"}
    assert result.quarantine.height == 5_000 - 64


def test_replies_that_are_none_are_refused() -> None:
    """The tree goes to quarantine whole."""
    broken = {"prompt": {**message("u1"), "replies": "none"}}
    result = taken_in([broken, {"prompt": ["u"]}], format="message_tree")
    assert result.quarantine["reason"].to_list() == ["wrong_type", "wrong_type"]
    assert json.loads(result.quarantine["raw"][0]) == broken


RANKED = {"prompt": "p", "answers": [{"answer": f"{n}", "rank": n} for n in (3, 1, 2, 2)]}
SCORED = {
    "instruction": "p",
    "completions": [{"response": f"{n}", "overall_score": n, "model": "m"} for n in (1, 3, 2)],
}
LISTED = {"prompt": "p", "generations": ["1", "3", "2"], "ratings": [1, 3, 2]}


@pytest.mark.parametrize(
    ("record", "pairs"),
    [
        (RANKED, ["1 3", "2 3", "2 3", "1 2", "1 2"]),
        (SCORED, ["3 1", "2 1", "3 2"]),
        (LISTED, ["3 1", "2 1", "3 2"]),
    ],
)
def test_all_pairs_of_ranked_answers_are_made_when_asked(
    record: dict[str, Any], pairs: list[str]
) -> None:
    """Ties make none; each row that is made is read as it is without the option."""
    result = taken_in([record], "preference", pairs="all")
    found = result.samples
    both = zip(said(result, "chosen"), said(result, "rejected"), strict=True)
    assert [" ".join(two) for two in both] == list(dict.fromkeys(pairs))
    assert result.num_rows_read == len(pairs)
    again = taken_in([json.loads(raw) for raw in found["raw"]], "preference").samples
    assert again["sample_id"].to_list() == found["sample_id"].to_list()
    assert taken_in([record], "preference").samples.height == 1


def test_answers_of_which_no_two_differ_stay_one_row() -> None:
    """It is refused as it is without the option."""
    ties = {"prompt": "p", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 1}]}
    broken = {"prompt": "p", "answers": [{"answer": "a", "rank": 1}, "b"]}
    result = taken_in([ties, broken], "preference", pairs="all")
    assert result.quarantine["reason"].to_list() == ["tied_scores", "wrong_type"]


def test_a_row_is_not_blown_up_without_bounds() -> None:
    """Thousands of answers would make millions of pairs."""
    record = {"prompt": "p", "answers": [{"answer": "a", "rank": n} for n in range(100)]}
    result = taken_in([record], "preference", pairs="all")
    assert result.quarantine["detail"].to_list() == [
        'pairs = "all" makes more than 2000 pairs of it'
    ]


def test_answers_in_rows_of_their_own_are_ranked_by_prompt() -> None:
    """By their helpfulness, wherever they stand in the file; one alone has nobody to be better."""
    rows = [
        {"prompt": prompt, "response": response, "helpfulness": score, "verbosity": 1}
        for prompt, response, score in [("p", "r", 0), ("q", "x", 3), ("p", "c", 4), ("p", "m", 2)]
    ]
    result = taken_in(rows, "preference")
    assert (said(result, "prompt"), said(result, "chosen"), said(result, "rejected")) == (
        ["p"],
        ["c"],
        ["r"],
    )
    assert result.samples["chosen_score"].to_list() == [4.0]
    assert result.unread == {"answers[].response": 1, "answers[].verbosity": 1}
    assert result.quarantine["reason"].to_list() == ["no_preference"]
    assert taken_in(rows, "preference", pairs="all").samples.height == 3
    assert taken_in(rows, "sft").unread == {"helpfulness": 4, "verbosity": 4}


def test_parts_of_an_answer_that_are_not_read_are_listed() -> None:
    """Other spellings, unless they are the same."""
    answers = {"text": ["a", "b"], "answer_start": [1, 2]}
    records = [
        {"question": "1", "answers": answers},
        {"question": "2", "answer": ["a", "b"]},
        {"question": "3", "answer": ["a", "a"]},
        {"question": "4", "answer": {"value": "v", "aliases": ["w"]}},
    ]
    result = taken_in(records)
    assert said(result) == ["1 a", "2 a", "3 a", "4 v"]
    assert result.unread == {
        "answers.text[1:]": 1,
        "answers.answer_start": 1,
        "answer[1:]": 1,
        "answer.aliases": 1,
    }


@pytest.mark.parametrize("layout", ["tree", "table"])
def test_a_tree_whose_threads_repeat_too_much_is_refused_whole(layout, monkeypatch):
    """A long question with many answers is in the row of each."""
    limits = ReadLimits(allowance_bytes=20_000, max_expansion=1)
    monkeypatch.setattr(rows_module, "_UNFOLDED", limits)
    root = message("u", *(message(f"a{n}") for n in range(30)), text="x" * 1_000)
    others = message("v", message("a"))
    records = [{"prompt": root}] if layout == "tree" else as_table(root) + as_table(others)
    result = taken_in(records, "sft")
    assert set(result.quarantine["reason"]) == {"decompression_bomb"}
    num_refused, num_threads = (1, 0) if layout == "tree" else (31, 1)
    assert (result.quarantine.height, result.samples.height) == (num_refused, num_threads)


def test_rows_that_belong_together_are_no_longer_than_a_row_may_be(monkeypatch):
    """They are in memory at once; others of the file are taken."""
    monkeypatch.setattr(gathering, "DEFAULT_LIMITS", ReadLimits(max_row_bytes=2_000))
    long = as_table(message("u", *(message(f"a{n}") for n in range(20))))
    result = taken_in(as_table(message("v", message("a"))) + long, "sft")
    assert said(result) == ["v a"]
    assert set(result.quarantine["reason"]) == {"row_too_long"}
    assert result.quarantine["source_row"].to_list() == list(range(3, 24))
    num_characters = sum(len(raw) for raw in result.quarantine["raw"])
    detail = f"{num_characters} characters belong together, allowed are 2000"
    assert set(result.quarantine["detail"]) == {detail}


def random_table(draw: random.Random) -> list[dict[str, Any]]:
    """Return messages in any order: trees, circles, names given twice and parents not there."""
    names = [*range(30), *map(str, range(5)), None, 1.5, True, ""]
    return [
        {
            "message_id": draw.choice(names),
            "parent_id": draw.choice([*names, None, None, None, "gone", [1]]),
            "role": draw.choice(["assistant", "prompter"]),
            "text": f"{n}",
            "rank": draw.choice([0, 1, 2]),
        }
        for n in range(draw.randrange(60))
    ]


def random_answers(draw: random.Random) -> list[dict[str, Any]]:
    """Return answers in any order, some without a prompt."""
    prompts = [{"prompt": p} for p in ("p", "q", 1, "1", [{"role": "user", "content": "p"}])]
    return [{**draw.choice([*prompts, {}]), "response": f"{n}"} for n in range(30)]


@pytest.mark.parametrize("name", ["message_table", "ranked_table", "scored_rows"])
def test_rows_that_wait_in_a_file_make_what_they_make_in_memory(name, monkeypatch):
    """All rows that belong together come together, and those first whose first came first."""
    monkeypatch.setattr(parts, "_PART_BYTES", 200)
    monkeypatch.setattr(parts, "_NUM_BUFFERED_ROWS", 3)
    gather = FORMATS[name].gather
    assert gather is not None
    for seed in range(15):
        draw = random.Random(seed)
        records = random_answers(draw) if name == "scored_rows" else random_table(draw)
        rows = [RawRow("f", n, f"{record}", record) for n, record in enumerate(records)]
        waiting = Gathered(gather, None)
        for row in rows:
            waiting.add(row)
        found, expected = list(waiting.rows()), list(gather.rows(rows))
        # What is refused, as what has no prompt, goes to quarantine, which has its own order.
        assert sorted(map(repr, found)) == sorted(map(repr, expected))
        taken = [
            [row for row in made if row.record and "response" not in row.record]
            for made in (found, expected)
        ]
        assert taken[0] == taken[1]
