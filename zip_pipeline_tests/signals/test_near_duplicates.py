"""Signal near_duplicates: what is a copy and what is not, against all pairs; policies; batches."""

import random
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import zip_pipeline
from zip_pipeline import tables
from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.report.trace import trace_sample
from zip_pipeline.samples import Sample
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.signals import (
    MARKS,
    MarkedPool,
    near_duplicates,
    near_pairs,
    settings_of,
    signals,
)
from zip_pipeline.signals.near_duplicates import Text, kind_of, sides_of
from zip_pipeline.workflow.versions import current_version, read_version, select_version
from zip_pipeline_tests.defs.trained_roots import ingest_rows
from zip_pipeline_tests.signals import near_copies
from zip_pipeline_tests.signals.measured import measured, table_of, talk

PASSAGE = (
    "The harbour of the old town was built of grey stone by monks who came over the hills in a "
    "cold winter and stayed for two hundred years before the sea took the outer wall"
)
ANSWER = "It was built by monks who had come over the hills, as the chronicle of the town says"


def _texts(prompt: str, answer: str) -> tuple[Text, Text]:
    return Text(prompt), Text(answer)


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ((PASSAGE, ANSWER), "same"),
        ((PASSAGE.upper() + " !", ANSWER.replace(",", ";")), "same"),
        ((PASSAGE.replace("grey", "white"), ANSWER.replace("chronicle", "book")), "same"),
        ((PASSAGE.replace("two", "three"), ANSWER), "same"),
        ((PASSAGE, "Nobody knows."), "same_prompt"),
        ((PASSAGE + " and who then built the tower on the other shore", ANSWER), "same_answer"),
        (("In what year was the bridge torn down, and who asked for it?", ANSWER), "same_answer"),
        (("Quite another question", "and another answer"), ""),
    ],
)
def test_kinds(other: tuple[str, str], kind: str) -> None:
    """Words changed here and there make a copy; a sentence more is another prompt."""
    pair = _texts(PASSAGE, ANSWER), _texts(*other)
    assert kind_of(*pair)[0] == kind_of(*reversed(pair))[0] == kind


def test_templates_differ_in_numbers_alone() -> None:
    """Numbers in the question make a template; in the answer alone, another answer."""
    prompt, answer = "Ann has 3 apples and buys 14 more; how many are there?", "There are 17."
    other = prompt.replace("14", "20")
    assert kind_of(_texts(prompt, answer), _texts(other, "There are 23."))[0] == "template"
    assert kind_of(_texts(prompt, answer), _texts(other, answer))[0] == "template"
    assert kind_of(_texts(prompt, answer), _texts(prompt, "There are 16."))[0] == "same_prompt"


def test_likeness_is_the_jaccard_index_of_word_pairs() -> None:
    """Of five and five pairs, four are common; words alone have none."""
    assert Text("a b c d e f").jaccard(Text("a b c d e g")) == 4 / 6
    assert Text("Yes!").jaccard(Text("yes")) == 1
    assert Text("yes").jaccard(Text("no")) == 0


def test_texts_of_many_words_are_compared_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hashes, and with few changes looked for first."""
    rng = random.Random(3)
    words = near_copies.vocabulary(rng)
    texts = [near_copies.invented(rng, 60, words) for _ in range(6)]
    texts += [
        near_copies.edited(text, share, rng, words) for text in texts for share in (0.05, 0.4)
    ]
    both = [_texts(one, two) for one in texts for two in texts[:3]]
    found = [kind_of(one, two) for one, two in combinations(both, 2)]
    monkeypatch.setattr(near_duplicates, "_MANY_WORDS", 5)
    assert [kind_of(one, two) for one, two in combinations(both, 2)] == found
    assert {kind for kind, *_ in found} == {"", "same", "same_prompt", "same_answer"}


def _marked(
    table: pl.DataFrame, folder: Path, told: pl.DataFrame | None = None, **settings: Any
) -> list[tuple[str | None, ...]]:
    """Return evidence and the id of the other sample of each row of a pool table.

    What the signal tells of the rows is measured now, if it is not given.
    """
    signal = signals["near_duplicates"]
    pool = MarkedPool(
        "sft",
        table.with_columns(source_file=pl.lit("a.jsonl"), source_row=pl.int_range(1, pl.len() + 1)),
        measured("near_duplicates", table) if told is None else told,
        TemporaryTexts.write([texts_of(table, "sft")], folder),
        lambda positions: iter([table[list(positions)]]),
        folder,
        folder,
        settings.pop("quality", None),
    )
    wanted = settings_of("near_duplicates", {"max_loss": 1.0} | settings)
    return pl.concat([MARKS.to_frame(), *signal.mark(pool, wanted)]).rows()


def _pool(num: int, share: float, seed: int = 0) -> pl.DataFrame:
    """Return samples, each followed by a copy in which a share of the words is edited."""
    rng = random.Random(seed)
    words = near_copies.vocabulary(rng)
    pairs = []
    for sample in near_copies.samples(rng, num, words):
        said = [near_copies.edited(turn.content, share, rng, words) for turn in sample.turns]
        pairs += [sample, talk(*said)]
    return table_of(pairs)


def test_marks_are_those_of_all_pairs(tmp_path: Path) -> None:
    """Bands lose next to no pair that a look at every two samples finds, and invent none."""
    table = _pool(120, 0.1)
    sides = [_texts(*both) for both in zip(*sides_of(table, "sft"), strict=True)]
    marked: set[int] = set()
    for x, y in combinations(range(len(sides)), 2):
        if x not in marked and y not in marked and kind_of(sides[x], sides[y])[0] == "same":
            marked.add(y)
    found = {row for row, (words, _) in enumerate(_marked(table, tmp_path)) if words is not None}
    assert found <= marked
    assert len(found) >= 0.98 * len(marked) > 100


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_edited_copies_are_found(share: float, tmp_path: Path) -> None:
    """Of copies with up to a tenth of the words edited, 95% are marked; nothing else is."""
    table = _pool(300, share)
    ids, found = table["sample_id"].to_list(), _marked(table, tmp_path)
    is_right = [other == ids[row - 1] for row, (_, other) in enumerate(found) if row % 2]
    num_marked = sum(other is not None for _, other in found)
    assert sum(is_right) >= 0.95 * 300
    assert sum(is_right) >= 0.98 * num_marked


def test_a_pool_of_nothing_has_no_marks(tmp_path: Path) -> None:
    """As where all its rows are refused."""
    assert _marked(CROWD.clear(), tmp_path, TOLD.clear()) == []


def test_evidence_names_the_sample_that_stays(tmp_path: Path) -> None:
    """With its place, and how alike they are."""
    table = table_of([talk(PASSAGE, ANSWER), talk(PASSAGE.replace("grey", "white"), ANSWER)])
    (first, copy) = _marked(table, tmp_path)
    assert first == (None, None)
    assert copy[0] is not None
    assert copy[0].startswith("the same prompt and answer: prompts alike by 0.89, answers by 1.00")
    assert copy[1] == table["sample_id"][0]


def test_each_policy_keeps_another_one(tmp_path: Path) -> None:
    """The first of the pool, the longest, or the best; keep marks nothing."""
    prompts = [PASSAGE, PASSAGE.replace("grey", "dark grey"), PASSAGE.replace("winter", "spring")]
    table = table_of([talk(prompt, ANSWER) for prompt in prompts])

    def kept(policy: str, **more: Any) -> list[int]:
        found = _marked(table, tmp_path, same=policy, **more)
        return [row for row, (words, _) in enumerate(found) if words is None]

    assert kept("keep") == [0, 1, 2]
    assert kept("first") == [0]
    assert kept("longest") == [1]
    assert kept("best", quality=pl.Series([0.1, 0.2, 0.9])) == [2]
    with pytest.raises(UserError, match="got the policy best, and the selection asks for no qual"):
        kept("best")


def test_other_kinds_are_kept_unless_asked(tmp_path: Path) -> None:
    """By default only those with prompt and answer the same are marked."""
    table = table_of([talk(PASSAGE, ANSWER), talk(PASSAGE, "No."), talk("And who was it?", ANSWER)])
    assert [words for words, _ in _marked(table, tmp_path)] == [None] * 3
    words = [w for w, _ in _marked(table, tmp_path, same_prompt="first", same_answer="first")]
    assert words[0] is None
    assert words[1] is not None
    assert words[1].startswith("the same prompt with another answer: ")
    assert words[2] is not None
    assert words[2].startswith("the same answer to another prompt: ")


def test_a_chain_of_small_changes_is_no_copy_of_its_ends(tmp_path: Path) -> None:
    """Who is like a marked sample alone takes part."""
    words, changed = PASSAGE.split(), ((), (0,), (0, 3), (0, 3, 6))
    chain = [
        " ".join(f"{word}x" if row % 8 in places else word for row, word in enumerate(words))
        for places in changed
    ]
    sides = [_texts(text, ANSWER) for text in chain]
    kinds = [[kind_of(one, other)[0] for other in sides] for one in sides]
    near, far = "same", "same_answer"
    assert kinds[0] == [near, near, far, far]
    assert kinds[2] == [far, near, near, near]
    found = _marked(table_of([talk(text, ANSWER) for text in chain]), tmp_path)
    assert [words is not None for words, _ in found] == [False, True, False, True]


def test_a_source_that_loses_too_much_stops(tmp_path: Path) -> None:
    """The message names it, what it would lose, and what to do."""
    table = _pool(20, 0.02)
    words = r"of 1 sources more than max_loss, 20%, would be .* a \d+ of 40 samples \(.*%\)"
    with pytest.raises(UserError, match=words):
        _marked(table, tmp_path, max_loss=0.2)
    assert len(_marked(table[:18], tmp_path, max_loss=0.2)) == 18


def _records(samples: list[Sample]) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": t.role, "content": t.content} for t in sample.turns]}
        for sample in samples
    ]


def _copies(num: int) -> list[dict[str, Any]]:
    """Return records of which every second one is a copy of the one before, with a word more."""
    rng = random.Random(3)
    words = near_copies.vocabulary(rng)
    firsts = near_copies.samples(rng, num, words)
    both = [(s, talk(s.turns[0].content + " please", s.turns[1].content)) for s in firsts]
    return _records([sample for pair in both for sample in pair])


SWITCHED_ON = {"near_duplicates": {"max_loss": 1.0}}


def test_the_interface_tells_why() -> None:
    """Rows picked and rows of every other fate add up; without the signal nothing is said."""
    selection = zip_pipeline.select(
        _copies(12), strategy="random", budget_samples=24, signals=SWITCHED_ON
    )
    assert selection.manifest["fates"] == {"near_duplicate": 12, "picked": 12}
    assert selection.manifest["marked"]["fates"]["near_duplicate"]["num"] == 12
    left_out = selection.left_out("near_duplicate")
    assert left_out["source_row"].to_list() == list(range(2, 25, 2))
    assert left_out["why"][0].startswith("marked as a near-duplicate: the same prompt and answer")
    plain = zip_pipeline.select(_copies(12), strategy="random", budget_samples=24)
    assert plain.manifest["fates"] == {"picked": 24}
    assert not {"evidence", "other"} & set(plain.ledger.columns)
    assert "marked" not in plain.manifest


def _config(**options: Any) -> SelectionConfig:
    return SelectionConfig(strategy="random", budget_samples=100, signals=SWITCHED_ON | options)


def _root(folder: Path, drops: dict[str, list[dict[str, Any]]]) -> DataRoot:
    root = DataRoot(folder)
    for name, rows in drops.items():
        ingest_rows(root, name, rows)
    return root


def test_a_new_batch_costs_its_own_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of two samples is not looked at again."""
    looked: list[int] = []

    def judged(*pair: Any) -> Any:
        looked.append(1)
        return kind_of(*pair)

    monkeypatch.setattr(near_duplicates, "kind_of", judged)
    copies = _copies(20)
    root = _root(tmp_path, {"a.jsonl": copies[:30]})
    select_version(root["sft"], _config(), print)
    assert len(looked) == 15
    ingest_rows(root, "b.jsonl", copies[30:])
    version = read_version(root["sft"], select_version(root["sft"], _config(), print))
    assert len(looked) == 20
    assert version.manifest["fates"]["near_duplicate"] == 20
    assert current_version(root["sft"], _config()) == version.number
    assert current_version(root["sft"], _config(near_duplicates={"same": "keep"})) is None


def _crowd(num: int) -> pl.DataFrame:
    """Return samples of which more share a bucket than are compared."""
    rng = random.Random(4)
    words = near_copies.vocabulary(rng)
    texts = [near_copies.invented(rng, 20, words) for _ in range(2)]
    said = [(near_copies.edited(rng.choice(texts), 0.1, rng, words), ANSWER) for _ in range(num)]
    return table_of([talk(*both) for both in said]).unique("sample_id", maintain_order=True)


CROWD = _crowd(60)
TOLD = measured("near_duplicates", CROWD)
FILE = "pairs-same-same_answer.parquet"


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, unique=True), min_size=2, max_size=5))
@settings(max_examples=10, deadline=None)
def test_what_is_kept_makes_no_difference(pools: list[list[int]]) -> None:
    """Drops that come, go and come again, in any order, are marked as if all came at once."""
    part = pl.int_range(CROWD.height, eager=True) % 6
    with TemporaryDirectory() as folder:
        for number, pool in enumerate(pools):
            rows = pl.concat([(part == name).arg_true() for name in pool])
            whole, kept = Path(folder, str(number)), Path(folder, "kept")
            of_pool = CROWD[rows], kept, TOLD[rows]
            found = _marked(*of_pool, same_answer="first")
            assert found == _marked(of_pool[0], whole, TOLD[rows], same_answer="first")
            pairs = [pl.read_parquet(each / FILE).explode("pairs") for each in (kept, whole)]
            in_order = [each.unnest("pairs").sort("id", "high") for each in pairs]
            assert_frame_equal(*in_order)
            assert rows.len() == in_order[0]["id"].n_unique()
    assert any(evidence for evidence, _ in found)


def test_marks_do_not_hang_on_what_is_looked_at_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether all pairs are in memory at a time, or those of a few samples."""
    found = _marked(CROWD, tmp_path / "whole", TOLD, same_answer="first")
    monkeypatch.setattr(tables, "_LEAST_KEYS", 7)
    for name in ("SIGNATURES", "SAMPLES", "PAIRS_JUDGED", "PAIRS"):
        monkeypatch.setattr(near_pairs, f"_{name}_AT_A_TIME", 5)
    monkeypatch.setattr(near_duplicates, "_BYTES_AT_A_TIME", 5_000)
    monkeypatch.setattr(near_duplicates, "_BYTES_WITH_WORDS", 1)
    _marked(CROWD[::2], tmp_path / "parts", TOLD[::2], same_answer="first")
    assert _marked(CROWD, tmp_path / "parts", TOLD, same_answer="first") == found
    assert _bands(tmp_path / "parts") == _bands(tmp_path / "whole")


def test_new_samples_part_old_neighbours(tmp_path: Path) -> None:
    """So that what is kept is put to the test above."""
    half = CROWD[::2]
    _marked(half, tmp_path, TOLD[::2], same_answer="first")
    before = _bands(tmp_path)
    _marked(CROWD, tmp_path, TOLD, same_answer="first")
    after = _bands(tmp_path)
    gone = [pair for pair in before if pair not in after]
    fewer = [pair for pair, num in before.items() if after.get(pair, num) < num]
    assert len(gone) > 10
    assert len(fewer) > 10


def _bands(folder: Path) -> dict[tuple[int, int], int]:
    """Return in how many bands each two samples stand near each other."""
    table = pl.read_parquet(folder / FILE)
    pairs = table.explode("pairs").unnest("pairs").drop_nulls("high")
    others = table["id"].gather(pairs["high"])
    return dict(zip(zip(pairs["id"], others, strict=True), pairs["num"], strict=True))


@pytest.mark.parametrize("harm", [b"", b"PAR1 no more"])
def test_pairs_that_cannot_be_read_are_found_again(harm: bytes, tmp_path: Path) -> None:
    """A harmed file changes no mark."""
    found = _marked(CROWD, tmp_path, TOLD, same_answer="first")
    (tmp_path / FILE).write_bytes(harm)
    assert _marked(CROWD, tmp_path, TOLD, same_answer="first") == found
    assert pl.read_parquet(tmp_path / FILE).height == CROWD.height


def test_the_order_of_drops_does_not_matter(tmp_path: Path) -> None:
    """First is who comes first by the names of the batches, whenever they came."""
    copies = _copies(20)
    drops = {"a.jsonl": copies[::2], "b.jsonl": copies[1::2]}
    found = []
    for name, order in (("x", ["a.jsonl", "b.jsonl"]), ("y", ["b.jsonl", "a.jsonl"])):
        root = DataRoot(tmp_path / name)
        for drop in order:
            ingest_rows(root, drop, drops[drop])
            number = select_version(root["sft"], _config(), print)
        found.append(read_version(root["sft"], number).ledger.drop("rank", "round"))
    assert found[0].equals(found[1])
    assert set(found[0].filter(fate="near_duplicate")["batch"]) == {"b.jsonl"}


def test_trace_shows_the_other_sample(tmp_path: Path) -> None:
    """Its text stands in the trace, by its id."""
    root = _root(tmp_path, {"a.jsonl": _copies(3)})
    version = read_version(root["sft"], select_version(root["sft"], _config(), print))
    copy = version.ledger.filter(fate="near_duplicate").row(0, named=True)
    found = trace_sample(root, copy["sample_id"])
    (text,) = found.others.values()
    assert list(found.others) == [copy["other"]]
    assert found.text is not None
    assert found.text.replace(" please", "") == text
