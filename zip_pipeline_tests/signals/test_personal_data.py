"""Signal personal_data: what is found and where, what is left alone, and how it is masked."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from zip_pipeline import read
from zip_pipeline.errors import UserError
from zip_pipeline.samples import PreferencePair, Turn
from zip_pipeline.signals import settings_of, signals
from zip_pipeline.signals.personal_data import masked_turns, spans_of_kinds
from zip_pipeline_tests.signals.measured import TOOLS, measured, table_of, talk
from zip_pipeline_tests.signals.personal_items import SHAPES, personal_items

PERSONAL = signals["personal_data"]
_MAIL = "anna.k@posteo.de"
_PHONE = "+49 30 2345678"


def _found(text: str) -> list[tuple[str, str]]:
    """Return kind and text of what is found in an answer."""
    table = measured("personal_data", table_of([talk("Hm?", text)]))
    spans = table["spans"].to_list()[0]
    return [(span["kind"], text[span["start"] : span["end"]]) for span in spans]


@pytest.mark.parametrize("shape", SHAPES)
def test_items_of_each_shape_are_found(shape: str) -> None:
    """With kind, start and end, at least 95% of them, and nothing else."""
    items = [item for item in personal_items() if item.shape == shape]
    assert len(items) == 15
    expected = [[(item.kind, item.secret)] for item in items]
    right = [_found(item.text) == found for item, found in zip(items, expected, strict=True)]
    assert sum(right) >= 0.95 * len(items), [
        i for i, ok in zip(items, right, strict=True) if not ok
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Write to anna@example.com, bob@mail.example.org, x@test, me@host.local or user@gmail.com.",
        "git clone git@github.com:zip/zip.git",
        "@decorator def f(x): return a@b",
        "Dial 555-0123, (212) 555-0147, 1-800-555-0199, 123-456-7890 or 000-000-0000.",
        "Between 1685-1753 and 2024-11-26, on 26/11/2024, pages 100-200 300-4000",
        "Phone: monthly, from 03/01/2023 to 04/01/2023",
        "balls 252 642 7293 4833 and 0.123-456-7890",
        "order 4539578763621487, id 1234567890123456, card 4242 4242 4242 4242",
        "DE89 3704 0044 0532 0130 00 and DE00 1234 5678 9012 3456 78",
        "ping 127.0.0.1, 192.168.1.1, 10.0.0.7, 192.0.2.44, 8.8.8.8, 0.0.0.0, 999.1.2.3",
        "version 20.14.88.3, v120.1.33.7, section 43.1.2.9",
        "2001:db8::1, ::1, fe80::1, std::vector, 12:30:45, 01:23:45:67:89:ab",
        "AKIAIOSFODNN7EXAMPLE and api_key = 'YOUR_API_KEY_1234567890abc'",
        "token = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaa1', password = 'password'",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEF\n-----END PUBLIC KEY-----",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "<<48+24=72>>72 clips; 3.141592653589793; 1,234,567.89; x = 10**15",
    ],
)
def test_documentation_code_and_maths_are_left_alone(text: str) -> None:
    """What is reserved, made up or counted is nobody's."""
    assert _found(text) == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_items_are_found_as_well(seed: int) -> None:
    """Of 300 that nobody looked at, at least 95%."""
    items = personal_items(seed)
    table = measured("personal_data", table_of([talk(item.text, "Yes") for item in items]))
    found = [
        [(span["kind"], item.text[span["start"] : span["end"]]) for span in spans]
        for item, spans in zip(items, table["spans"].to_list(), strict=True)
    ]
    right = [new == [(item.kind, item.secret)] for item, new in zip(items, found, strict=True)]
    assert len(right) == 300
    assert sum(right) >= 285


def test_what_overlaps_is_found_once() -> None:
    """The kinds that are surer come first."""
    assert _found(f'api_key = "hf_{"aB3dE6gH9" * 4}"') == [("api_key", f"hf_{'aB3dE6gH9' * 4}")]
    assert [kind for kind, _ in _found(f"{_MAIL} {_PHONE} {_MAIL}")] == ["mail", "phone", "mail"]


def test_kinds_are_counted_and_places_told() -> None:
    """In every column and each field of a turn."""
    call = json.dumps([{"name": "mail", "arguments": {"to": _MAIL}}])
    pair = PreferencePair(
        (Turn("user", f"Mail {_MAIL}"),),
        (Turn("assistant", "", tool_calls=call, reasoning=f"Or {_PHONE}?"),),
        (Turn("assistant", "No"),),
    )
    table = measured(
        "personal_data", table_of([pair, pair, talk_pair()], "preference"), "preference", block=2
    )
    assert table["kinds"].to_list() == [
        *[[{"kind": "mail", "num": 2}, {"kind": "phone", "num": 1}]] * 2,
        [],
    ]
    spans = table["spans"].to_list()[1]
    assert [tuple(span.values()) for span in spans] == [
        ("prompt", 1, "content", 5, 5 + len(_MAIL), "mail"),
        ("chosen", 1, "reasoning", 3, 3 + len(_PHONE), "phone"),
        ("chosen", 1, "tool_calls", call.index("anna"), call.index("anna") + len(_MAIL), "mail"),
    ]


def talk_pair() -> PreferencePair:
    """Return a pair without personal data."""
    return PreferencePair(*[(Turn(role, "No"),) for role in ("user", "assistant", "assistant")])


def test_masks_stand_in_the_place_of_spans() -> None:
    """All that is around them stays, and tool calls stay JSON."""
    card = "4539578763621486"
    call = f'{{"to": "{_MAIL} \\"x\\"", "card": {card}}}'
    turns = (
        Turn("user", f"I am {_MAIL}, {_PHONE} or {_MAIL}."),
        Turn("assistant", "Äöü: 2 + 2", tool_calls=call, reasoning=f"Hm, {_MAIL}"),
    )
    pair = PreferencePair(turns[:1], turns[1:], (Turn("assistant", _MAIL),))
    table = measured("personal_data", table_of([pair], "preference"), "preference")
    spans = table["spans"].to_list()[0]
    assert masked_turns(pair.prompt, spans, "prompt") == (
        Turn("user", "I am [MAIL], [PHONE] or [MAIL]."),
    )
    (answer,) = masked_turns(pair.chosen, spans, "chosen")
    assert (answer.content, answer.reasoning) == ("Äöü: 2 + 2", "Hm, [MAIL]")
    assert json.loads(answer.tool_calls) == {"to": '[MAIL] "x"', "card": "[CARD]"}
    assert masked_turns(pair.rejected, spans, "rejected")[0].content == "[MAIL]"
    assert masked_turns(pair.prompt, [], "prompt") == pair.prompt


@pytest.mark.parametrize("item", personal_items()[::15], ids=lambda item: item.shape)
def test_masked_texts_have_no_personal_data(item: object) -> None:
    """Nothing is found in what was masked, and the secret is gone."""
    text, secret = item.text, item.secret  # type: ignore[attr-defined]
    spans = measured("personal_data", table_of([talk(text, "Yes")]))["spans"].to_list()[0]
    (turn,) = masked_turns([Turn("user", text)], spans, "turns")
    assert secret not in turn.content
    assert _found(turn.content) == []


def test_only_the_policy_exclude_marks() -> None:
    """Samples with one of the kinds, in words that do not say the data."""
    table = measured("personal_data", table_of([talk(_MAIL, f"{_MAIL} {_PHONE}"), talk("a", "b")]))

    def marks(**policy: object) -> list[str | None]:
        return PERSONAL.marks(table, settings_of("personal_data", policy)).to_list()

    assert marks() == marks(policy="mask") == [None, None]
    place = "characters 0 to 16"
    mark = f"2 mail, 1 phone; the first is mail in turns, turn 1, content, {place}"
    assert marks(policy="exclude") == [mark, None]
    mark = "1 phone; the first is phone in turns, turn 2, content, characters 17 to 31"
    assert marks(policy="exclude", kinds=["phone", "card"]) == [mark, None]
    only = settings_of("personal_data", {"kinds": ["phone"]})
    assert [span["kind"] for span in spans_of_kinds(table["spans"].to_list()[0], only)] == ["phone"]


def test_schemas_of_tools_are_searched_and_masked() -> None:
    """A default that is somebody's address, also in the record; the schema stays JSON."""
    schema = [{"name": "mail", "default": _MAIL, "also": f'{_PHONE} or "{_MAIL}"', "card": 1}]
    tools, said = json.dumps(schema), talk(f"Mail {_MAIL}", "Yes")
    rows = table_of(
        [replace(said, tools=tools), replace(talk("Hm?", "No"), tools=tools), talk("Hm?", "No")],
        raw=[json.dumps({"tools": schema}), json.dumps({"tools": tools}), "{}"],
    )
    told = measured("personal_data", rows, block=2)
    counts = [{kind["kind"]: kind["num"] for kind in found} for found in told["kinds"]]
    assert counts == [{"mail": 3, "phone": 1}, {"mail": 2, "phone": 1}, {}]
    exclude, mask = (settings_of("personal_data", {"policy": p}) for p in ("exclude", "mask"))
    start = tools.index(_MAIL)
    place = f"the first is mail in tools, characters {start} to {start + len(_MAIL)}"
    assert PERSONAL.marks(told, exclude).to_list()[1:] == [f"2 mail, 1 phone; {place}", None]
    masked = PERSONAL.masked(rows, told, mask, "sft")
    hidden = [schema[0] | {"default": "[MAIL]", "also": '[PHONE] or "[MAIL]"'}]
    assert [json.loads(text) for text in masked["tools"][:2]] == [hidden, hidden]
    assert masked["tools"][2] == ""
    assert masked["turns"][0][0]["content"] == "Mail [MAIL]"
    assert json.loads(masked["raw"][0]) == {"tools": hidden}
    assert _MAIL not in masked["raw"][1]
    assert masked[2].equals(rows[2])


def test_the_policy_is_not_measured() -> None:
    """Another one reads what is stored; kinds that do not exist are errors."""
    settings = [settings_of("personal_data", given) for given in ({}, {"policy": "mask"})]
    assert len({PERSONAL.identity(each, TOOLS) for each in settings}) == 1
    with pytest.raises(UserError, match="kinds: got 'fax'; allowed are api_key, card, cloud_token"):
        settings_of("personal_data", {"kinds": ["fax"]})
    with pytest.raises(UserError, match="policy: got 'drop'; allowed are report, exclude, mask"):
        settings_of("personal_data", {"policy": "drop"})


@pytest.mark.slow
def test_real_samples(shared_folder: Path) -> None:
    """Of 10,000 rows, most of them of code, maths and news, at most 30 have any; all are shown."""
    paths = sorted((shared_folder / "pools" / "sft").glob("*.gz"))
    samples = read(paths).samples.sample(10_000, seed=1)
    table = measured("personal_data", samples, block=4096)
    shown: dict[str, list[str]] = defaultdict(list)
    for row, spans in zip(samples.iter_rows(named=True), table["spans"], strict=True):
        for span in spans:
            text = row["turns"][span["turn"] - 1][span["field"]] if span["turn"] else row["tools"]
            shown[span["kind"]].append(text[max(0, span["start"] - 20) : span["end"] + 10])
    num_rows = (table["kinds"].list.len() > 0).sum()
    print(num_rows, "rows", Counter({kind: len(texts) for kind, texts in shown.items()}))
    print(*(f"{kind}: {text!r}" for kind, texts in shown.items() for text in texts), sep="\n")
    assert 0 < num_rows <= 30
