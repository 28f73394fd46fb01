"""Rules of reading JSON files."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zip_pipeline.ingest.json_values import read_json
from zip_pipeline.ingest.rows import DEFAULT_LIMITS, ReadLimits, RejectionError
from zip_pipeline_tests.ingest.test_text import cut

TEXTS = st.text(alphabet='ab"\\,[]{}:\n\té', max_size=8)
RECORDS = st.lists(
    st.dictionaries(TEXTS, TEXTS | st.integers() | st.lists(TEXTS, max_size=2), max_size=3),
    max_size=4,
)


def read(text: bytes, size: int = 1 << 20, limits: ReadLimits = DEFAULT_LIMITS) -> list:
    """Return the rows of a JSON text that comes in pieces."""
    return list(read_json(iter(cut(text, size)), "f.json", limits))


@settings(deadline=None)
@given(RECORDS, st.integers(1, 7), st.sampled_from([None, 2]), st.booleans())
def test_read_json_equals_loading_it_whole(records, size, indent, ascii_only):
    """However the bytes come in, a list and an envelope give the records of one load."""
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only)
    for whole in (text, f'{{"v": [1, {{}}], "data" : {text}, "w": {{"data": [2]}}}}'):
        rows = read(whole.encode(), size)
        assert [row.record for row in rows] == records
        assert [row.source_row for row in rows] == list(range(1, len(records) + 1))
        assert [json.loads(row.raw) for row in rows] == records


@settings(deadline=None)
@given(RECORDS, st.integers(1, 7), st.sampled_from([None, 2]), st.sampled_from(["\n", " ", ""]))
def test_read_json_takes_one_object_after_another(records, size, indent, separator):
    """Objects that follow one another, a line each or not, are rows."""
    # An object of nothing but equally long lists is a table.
    records = [{"n": 0} | record for record in records]
    text = separator.join(json.dumps(record, indent=indent) for record in records)
    assert [row.record for row in read(text.encode(), size)] == records


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (b"", []),
        (b" \n", []),
        (b"[]", []),
        (b'{"data": []}', []),
        (b'[{"a": 1},]', [None]),
        (b'[{"a": 1},, {"a": NaN}]', [None, "invalid_json", None]),
        (b'[,,\n, ,{"a": 1},,,, {"a": 2},,]', ["invalid_json", None] * 2 + ["invalid_json"]),
        (b"[" + b"," * 300 + b"]", ["invalid_json"]),
        (b'[{"a": 1}, {"a": oops}, {"a": 2}]', [None, "invalid_json", None]),
        (b'[{"a": 1} {"b": 2}, {"a": 2}]', ["invalid_json", None]),
        (b'[{"a": "\xff"}, {"a": 2}]', ["bad_encoding", None]),
        (b'[1, "x", [], null, {"a": 2}]', ["not_an_object"] * 4 + [None]),
        (b'[{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b'}, {"a": 2}]', ["nested_too_deep", None]),
        (b'[{"a": 1}] [{"a": 2}]', [None, None]),
        (b'[{"a": 1}] and more', [None, "invalid_json"]),
        (b'{"a": 1}]', [None, "invalid_json"]),
        (b'{"a": 1}\n{"a": \n{"a": 2}\n', [None, "invalid_json", None]),
        (b"null", ["not_an_object"]),
        (b'{"prompt": "p", "data": [1]}\n{"prompt": "q", "data": [2]}', [None, None]),
    ],
)
def test_read_json_costs_one_row_for_each_broken_value(text, reasons):
    """A broken value is one rejected row, its neighbours survive."""
    assert [row.reason for row in read(text)] == reasons


def test_read_json_skips_an_item_above_the_limit():
    """An item above the limit is one rejected row with its beginning; the others survive."""
    text = json.dumps([{"a": 1}, {"b": "x" * 9000}, {"c": 3}]).encode()
    rows = read(text, 700, ReadLimits(max_row_bytes=5000))
    assert [row.record for row in rows] == [{"a": 1}, None, {"c": 3}]
    assert rows[1].reason == "row_too_long"
    assert rows[1].detail.startswith("9010 bytes, allowed are 5000;")


@pytest.mark.parametrize("end", ['{"a": 2', '{"a": 2}', '{"a": "2', ""])
def test_read_json_gives_the_rows_before_a_cut_off_end(end):
    """Where the file ends inside the list, its whole items come first; the rest is rejected."""
    rows = read_json(iter([f'[{{"a": 1}}, {end}'.encode()]), "f.json", DEFAULT_LIMITS)
    assert next(rows).record == {"a": 1}
    with pytest.raises(RejectionError, match="the file ends inside a list or object") as caught:
        next(rows)
    assert caught.value.raw.strip() == end


ROWS = ['{"prompt": "1", "completion": "a"}', '{"prompt": "2", "completion": "b"}']
FIRST, SECOND = ROWS
BOTH = f"{FIRST}, {SECOND}"
WITH_DATA = '{"instruction": "q", "output": "a", "data": [{"prompt": "1", "completion": "a"}]}'
STRINGS = '{"instruction": "q", "output": "a", "data": ["x"]}'
EMPTY = '{"instruction": "q", "output": "a", "data": []}'
TURNS = '{"id": 0, "data": [{"role": "user", "content": "Hi"}]}'
SPLITS = f'{{"train": [{FIRST}], "data": [{SECOND}]}}'
HALVES = f'{{"data": [{FIRST}], "data2": [{SECOND}]}}'
TWICE = f'{{"data": [{FIRST}], "data": [{SECOND}]}}'
NUMBERS = f'{{"data": [{FIRST}], "more": [{{"question": 1, "answer": 2}}]}}'


@pytest.mark.parametrize(
    ("text", "raws"),
    [
        (WITH_DATA, [WITH_DATA]),
        (STRINGS, [STRINGS]),
        (f"{EMPTY}\n{EMPTY}\n", [EMPTY, EMPTY]),
        (f"{EMPTY} {WITH_DATA}", [EMPTY, WITH_DATA]),
        (WITH_DATA.replace(", ", ",\n "), [WITH_DATA]),
        (f"[{WITH_DATA}, {EMPTY}]", [WITH_DATA, EMPTY]),
        (TURNS, [TURNS]),
        (
            '{"question": 1, "answer": 2, "data": [{}]}',
            ['{"question": 1, "answer": 2, "data": [{}]}'],
        ),
        (f'{{"data": [{FIRST}]}}\n{{"data": [{SECOND}]}}\n', ROWS),
        (f'{{"data"{" " * 100}: [{BOTH}]}}', ROWS),
        (f'{{"info": {{"data": [1]}}, "data": [{BOTH}]}}', ROWS),
        (f'{{"version": "1", "info": {{"License": "x"}}, "n": 2, "data": [{BOTH}]}}', ROWS),
        (f"{{}}\n{FIRST}\n{SECOND}\n", ["{}", *ROWS]),
        (f'{{}}\n{{"data": [{BOTH}]}}\n', ["{}", *ROWS]),
        (SPLITS, [("mixed_object", SPLITS)]),
        (HALVES, [("mixed_object", HALVES)]),
        (TWICE, [("mixed_object", TWICE)]),
        (NUMBERS, [("mixed_object", NUMBERS)]),
        (
            f'{{"note": "N", "data": [{BOTH}]}}',
            [*ROWS, ("mixed_object", '{"note": "N", "data": []}')],
        ),
        (
            f'{{"note": oops, "data": [{BOTH}]}}',
            [*ROWS, ("invalid_json", '{"note": oops, "data": []}')],
        ),
        (
            f"[[{BOTH}], [{SECOND}]]",
            [("not_an_object", f"[{BOTH}]"), ("not_an_object", f"[{SECOND}]")],
        ),
        (
            f'{{"data": [[{BOTH}], [{SECOND}]]}}',
            [("not_an_object", f"[{BOTH}]"), ("not_an_object", f"[{SECOND}]")],
        ),
        (
            f'{{"data": [{FIRST}], {SECOND}, {FIRST}]}}',
            [FIRST, ("invalid_json", '{"data": []'), SECOND, FIRST, ("invalid_json", "]}")],
        ),
        (
            f'{{"data": [{FIRST}, {SECOND[:-1]}]], {FIRST}]}}',
            [
                FIRST,
                ("invalid_json", f"{SECOND[:-1]}]"),
                ("invalid_json", '{"data": []'),
                FIRST,
                ("invalid_json", "]}"),
            ],
        ),
        (f"[{FIRST[:-1]}, {SECOND}]", [("invalid_json", FIRST[:-1]), SECOND]),
        (f"[{FIRST}}}, {SECOND}]", [("invalid_json", f"{FIRST}}}"), SECOND]),
        (f'[{{"a": [1}}, {SECOND}]', [("invalid_json", '{"a": [1}'), SECOND]),
        (f"{FIRST[:-1]}\n{SECOND}\n", [("invalid_json", FIRST[:-1]), SECOND]),
        (f"[{FIRST}], {SECOND}]", [FIRST, SECOND, ("invalid_json", "]")]),
        (f"rows = [{FIRST}];", [("invalid_json", "rows ="), FIRST, ("invalid_json", ";")]),
        (f"\0{FIRST}", [("invalid_json", "\0"), FIRST]),
        ('{"a": 1,\n "a": 2}', ['{"a": 1, "a": 2}']),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_read_json_reads_or_rejects_all_that_an_object_holds(text, raws, size):
    """An object is an envelope, a row or rejected; whatever it is, nothing of it is lost."""
    rows = [(row.reason, row.raw) for row in read(text.encode(), size)]
    assert rows == [(None, raw) if isinstance(raw, str) else raw for raw in raws]


def test_read_json_names_the_lists_of_a_mixed_object():
    """Which lists there are, and what to do about them, is told."""
    assert read(HALVES.encode())[0].detail == (
        'the object has "data2" beside its list of rows "data"; '
        "put each list into a file of its own, other fields into none"
    )


@pytest.mark.parametrize(
    ("after", "reason", "raw"),
    [
        (', "n": 2}', None, ""),
        (f', "train": [{FIRST}]}}', "mixed_object", f'{{"v": 1,\n"data": [], "train": [{FIRST}]}}'),
        (
            ', "question": 1, "answer": 2}',
            "mixed_object",
            '{"v": 1,\n"data": [], "question": 1, "answer": 2}',
        ),
        (f', "x": "{"y" * 300}"}}', "row_too_long", f'{{"v": 1,\n"data": [], "x": "{"y" * 192}'),
    ],
)
def test_read_json_streams_an_envelope_longer_than_a_row(after, reason, raw):
    """Its rows come one by one, then what else the object holds."""
    taken = []
    text = f'{{"v": 1,\n"data": [{", ".join([FIRST] * 50)}]{after}'.encode()

    def chunks():
        for chunk in cut(text, 10):
            taken.append(chunk)
            yield chunk

    limits = ReadLimits(max_row_bytes=200)
    rows = read_json(chunks(), "f.json", limits)
    assert next(rows).raw == FIRST
    assert sum(map(len, taken)) < 250
    others = [(row.reason, row.raw) for row in rows]
    assert others == [(None, FIRST)] * 49 + ([(reason, raw)] if reason else [])


def test_read_json_gives_the_rows_before_damage():
    """Rows of the first chunk come even where the second is damaged, in a list or an envelope."""

    def chunks(text):
        yield text.encode()
        raise RejectionError("corrupt_archive", "bad")

    for text, rest in [(f'[{FIRST}, {{"a"', '{"a"'), (f'{{"data": [{FIRST}, ', '{"data": [')]:
        rows = read_json(chunks(text), "f.json", DEFAULT_LIMITS)
        assert next(rows).raw == FIRST
        with pytest.raises(RejectionError, match="corrupt_archive: bad") as caught:
            next(rows)
        assert caught.value.raw.strip() == rest


# Metadata is left out, so under the names of metadata there is no text that could be looked for.
FIELDS = st.sampled_from(
    [
        "data",
        "train",
        "prompt",
        "completion",
        "instruction",
        "output",
        "messages",
        "role",
        "content",
    ]
)
KNOWN = {"prompt": "<>", "completion": "<>"}
MARKED = st.recursive(
    st.just("<>") | st.sampled_from([0, None, [], {}]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(FIELDS, inner, max_size=3)
        | st.dictionaries(FIELDS, inner, max_size=2).map(lambda value: value | {"data": [KNOWN]})
        | inner.map(lambda value: {"version": "1", "n": [2], "data": [KNOWN, value]})
        | inner.map(lambda value: {"data": [{"x": "<>"}, value]})
        | inner.map(lambda value: {"n": 1, "rows": [{"row_idx": 0, "row": {"x": value}}]})
        | inner.map(lambda value: [{"role": "<>", "content": "<>"}, value])
        | inner.map(lambda value: {"prompt": ["<>", "<>"], "completion": [value, "<>"]})
        | inner.map(lambda value: {"prompt": {"0": "<>"}, "completion": {"0": value}})
        | inner.map(lambda value: {"x": KNOWN, "y": KNOWN | {"data": value}})
    ),
    max_leaves=12,
)
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True), st.sampled_from(["", *"[]{},:", "\n", "oops", "\0"])
    ),
    max_size=3,
)


def raws_of(text: bytes, size: int, limits: ReadLimits = DEFAULT_LIMITS) -> list[str]:
    """Return the raw texts of all rows, and of what stands for the rest."""
    raws = []
    try:
        for row in read_json(iter(cut(text, size)), "f.json", limits):
            raws.append(row.raw)
    except RejectionError as why:
        raws.append(why.raw)
    return raws


def mark_and_edit(documents, indent, separator, edits) -> str:
    """Return documents with numbered marks, in which some brackets are replaced."""
    text = separator.join(json.dumps(document, indent=indent) for document in documents)
    parts = text.split("<>")
    text = "".join(f"{part}<{number}>" for number, part in enumerate(parts[:-1])) + parts[-1]
    for place, new in edits:
        brackets = [match.start() for match in re.finditer(r"[\[\]{},:\n]", text)] or [0]
        at = brackets[int(place * len(brackets))]
        text = text[:at] + new + text[at + 1 :]
    return text


DOCUMENTS = (
    st.lists(MARKED, max_size=3),
    st.sampled_from([None, 0, 1]),
    st.sampled_from(["\n", " ", ",", ""]),
    EDITS,
)


@settings(deadline=None, max_examples=300)
@given(*DOCUMENTS, st.integers(1, 9))
def test_read_json_loses_nothing(documents, indent, separator, edits, size):
    """Every text is in exactly one row or rejection, whatever is around it and however broken."""
    text = mark_and_edit(documents, indent, separator, edits)
    found = re.findall("<[0-9]+>", "".join(raws_of(text.encode(), size)))
    assert sorted(found) == sorted(re.findall("<[0-9]+>", text))


@settings(deadline=None, max_examples=300)
@given(*DOCUMENTS, st.integers(1, 9), st.integers(1, 60))
def test_read_json_does_not_depend_on_how_bytes_come(
    documents, indent, separator, edits, size, max_row_bytes
):
    """Rows, their limits and envelopes are the same in whatever pieces a file is read."""
    text = mark_and_edit(documents, indent, separator, edits).encode()
    limits = ReadLimits(max_row_bytes=max_row_bytes)
    assert raws_of(text, size, limits) == raws_of(text, 1 << 20, limits)


def turns(text: str) -> list[dict]:
    """Return a conversation."""
    return [{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}]


def test_read_json_takes_a_list_of_turns_longer_than_a_row_item_by_item():
    """Then it is no conversation that could be kept."""
    text = json.dumps(turns("a" * 50) * 10).encode()
    rows = read(text, 7, ReadLimits(max_row_bytes=200))
    assert [row.record for row in rows] == turns("a" * 50) * 10
