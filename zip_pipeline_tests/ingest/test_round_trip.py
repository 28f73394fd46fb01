"""Rules of identity: a sample is the same in every format, kind of file and compression."""

import json

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from zip_pipeline.ingest.ingest import ingest
from zip_pipeline.samples import PreferencePair, Sample, Turn, normalise_text, sample_id
from zip_pipeline_tests.pool.files import COMPRESSIONS, KINDS, write

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ANSWERS = TEXTS.filter(str.strip)
EXCHANGES = st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=3)
NAMES = st.sampled_from([f"{name}{suffix}" for name in KINDS for suffix in COMPRESSIONS])
FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def messages(exchanges: list[tuple[str, str]], *, sharegpt: bool = False) -> list[dict[str, str]]:
    """Return the messages of a dialogue."""
    role, content = ("from", "value") if sharegpt else ("role", "content")
    user, assistant = ("human", "gpt") if sharegpt else ("user", "assistant")
    return [
        {role: name, content: text}
        for exchange in exchanges
        for name, text in zip((user, assistant), exchange, strict=True)
    ]


def turns(exchanges: list[tuple[str, str]]) -> tuple[Turn, ...]:
    """Return the turns of a dialogue."""
    return tuple(Turn(m["role"], m["content"]) for m in messages(exchanges))


def sft_records(dialogues: list) -> list[list[dict]]:
    """Return the dialogues in each format that can hold them."""
    records = [
        [{"messages": messages(d)} for d in dialogues],
        [{"conversations": messages(d, sharegpt=True)} for d in dialogues],
    ]
    if all(len(dialogue) == 1 for dialogue in dialogues):
        pairs = [dialogue[0] for dialogue in dialogues]
        for user, assistant in (("instruction", "output"), ("prompt", "completion")):
            records.append([{user: u, assistant: a} for u, a in pairs])
        records.append([{"question": u, "answer": a} for u, a in pairs])
    return records


@pytest.mark.slow
@FILES
@given(
    name=NAMES,
    dialogues=st.lists(EXCHANGES, min_size=1, max_size=4)
    | st.lists(EXCHANGES.map(lambda e: e[:1]), min_size=1, max_size=4),
)
def test_sft_samples_survive_every_format_and_file(tmp_path, name, dialogues):
    """Conversations come back with the same ids, in order, from every format and file."""
    expected = list(dict.fromkeys(sample_id(Sample(turns(d))) for d in dialogues))
    for records in sft_records(dialogues):
        path = write(tmp_path / name, KINDS[".".join(name.split(".")[:2])](records))
        result = ingest(path, "sft", batch="b")
        assert result.quarantine.height == 0
        assert result.samples["sample_id"].to_list() == expected


@pytest.mark.slow
@FILES
@given(name=NAMES, prompt=EXCHANGES, ask=TEXTS, sides=st.lists(ANSWERS, min_size=2, max_size=2))
def test_pairs_survive_every_format_and_file(tmp_path, name, prompt, ask, sides):
    """Pairs come back with the same id from every format and file."""
    chosen, rejected = sides
    assume(normalise_text(chosen) != normalise_text(rejected))
    before = (*turns(prompt), Turn("user", ask))
    answers = ((Turn("assistant", chosen),), (Turn("assistant", rejected),))
    expected = sample_id(PreferencePair(before, *answers))
    asked = [*messages(prompt), {"role": "user", "content": ask}]
    replies = [[{"role": "assistant", "content": side}] for side in sides]
    forms = [
        {"prompt": asked, "chosen": replies[0], "rejected": replies[1]},
        {"prompt": ask, "chosen": asked + replies[0], "rejected": asked + replies[1]},
        {"chosen": asked + replies[0], "rejected": asked + replies[1]},
    ]
    write_kind = KINDS[".".join(name.split(".")[:2])]
    for record in forms:
        result = ingest(write(tmp_path / name, write_kind([record])), "preference", batch="b")
        assert result.quarantine.height == 0
        assert result.samples["sample_id"].to_list() == [expected]


def test_raw_rows_come_back_as_they_were(tmp_path):
    """The raw record of a sample holds the same values whatever the kind of file."""
    record = {"messages": messages([("é", "a")]), "n": 1.5, "flag": True, "none": None}
    for name, write_kind in KINDS.items():
        if name not in ("table.csv", "table.tsv"):
            result = ingest(write(tmp_path / name, write_kind([record])), "sft", batch="b")
            assert json.loads(result.samples["raw"].item()) == record
