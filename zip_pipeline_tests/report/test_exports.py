"""Rows as trainers take them: one form for each format, and nothing lost without a word."""

import json
from typing import Any

import pytest
import yaml

from zip_pipeline.errors import UserError
from zip_pipeline.report.exports import FORMATS, Table, format_named, tables_of
from zip_pipeline.samples import AnySample, PreferencePair, RatedAnswer, Sample, Stage, Turn

CALLS = '[{"function": {"arguments": {"city": "Kiel"}, "name": "weather"}, "type": "function"}]'
SCHEMAS = '[{"function": {"name": "weather", "parameters": {}}, "type": "function"}]'
CALLED = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Kiel"}}}
SCHEMA = {"type": "function", "function": {"name": "weather", "parameters": {}}}
PLAIN = Sample((Turn("user", "Hi"), Turn("assistant", "Hello")))
THOUGHT = Sample((Turn("user", "2+2?"), Turn("assistant", "4", reasoning="Two twos.")))
CALLING = Sample(
    (
        Turn("user", "Weather?"),
        Turn("assistant", "", tool_calls=CALLS),
        Turn("tool", "Rain", name="weather"),
        Turn("assistant", "It rains."),
    ),
    tools=SCHEMAS,
)
LONG = Sample(
    (
        Turn("system", "Be brief."),
        Turn("user", "A"),
        Turn("assistant", "B", loss=False),
        Turn("user", "C"),
        Turn("assistant", "D"),
    )
)
LEARNT = Sample(tuple(Turn(turn.role, turn.content) for turn in LONG.turns))
ASK = (Turn("user", "Why?"),)
PAIR = PreferencePair(ASK, (Turn("assistant", "So."),), (Turn("assistant", "No."),), 4.0, 1.0)
UNSCORED = PreferencePair(ASK, (Turn("assistant", "Yes."),), (Turn("assistant", "?"),))
RATED = RatedAnswer(ASK, (Turn("assistant", "Hm."),), desirable=False)


def tables(name: str, *samples: AnySample) -> dict[str, Table]:
    """Return the tables of samples by name; ids are their places."""
    stage: Stage = "sft" if isinstance(samples[0], Sample) else "preference"
    numbered = [(str(place), sample) for place, sample in enumerate(samples)]
    return {table.name: table for table in tables_of(FORMATS[name], numbered, stage)}


def said(*texts: str) -> list[dict[str, str]]:
    """Return texts as messages of a user and the assistant in turn."""
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


MESSAGES_OF_CALL = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALLED]},
    {"role": "tool", "content": "Rain", "name": "weather"},
    {"role": "assistant", "content": "It rains."},
]


@pytest.mark.parametrize("name", ["messages", "trl", "axolotl", "datasets"])
def test_chat_rows_keep_calls_as_objects_and_reasoning(name: str) -> None:
    """Messages have the keys that they need and no others; all rows have the column tools."""
    (table,) = tables(name, PLAIN, THOUGHT, CALLING).values()
    assert table.rows == [
        {"messages": said("Hi", "Hello"), "tools": []},
        {
            "messages": [
                {"role": "user", "content": "2+2?"},
                {"role": "assistant", "content": "4", "reasoning_content": "Two twos."},
            ],
            "tools": [],
        },
        {"messages": MESSAGES_OF_CALL, "tools": [SCHEMA]},
    ]
    assert (table.refused, table.dropped, table.sample_ids) == ([], {}, ["0", "1", "2"])
    (plain,) = tables(name, PLAIN).values()
    assert plain.rows == [{"messages": said("Hi", "Hello")}]


def test_arguments_that_are_json_text_become_objects() -> None:
    """As OpenAI's interface writes them; a call without a frame gets one."""
    calls = json.dumps([{"name": "weather", "arguments": '{"city": "Kiel"}'}])
    turns = (Turn("user", "W?"), Turn("assistant", "", tool_calls=calls))
    (table,) = tables("trl", Sample(turns)).values()
    assert table.rows[0]["messages"][1]["tool_calls"] == [CALLED]


@pytest.mark.parametrize("calls", ["weather(Kiel)", '[{"name": "f", "arguments": "Kiel"}]', "[3]"])
@pytest.mark.parametrize("name", ["messages", "sharegpt", "trl"])
def test_calls_that_no_template_can_write_are_refused(name: str, calls: str) -> None:
    """Arguments must be an object."""
    turns = (Turn("user", "W?"), Turn("assistant", "", tool_calls=calls))
    (table,) = tables(name, PLAIN, Sample(turns)).values()
    assert len(table.rows) == 1
    assert table.refused == [("1", "tool calls that are no objects with a name and arguments")]


@pytest.mark.parametrize(
    ("name", "key", "off", "on"),
    [("messages", "weight", 0, 1), ("datasets", "weight", 0, 1), ("axolotl", "train", False, True)],
)
def test_weights_stand_in_every_row_or_in_none(
    name: str, key: str, off: object, on: object
) -> None:
    """Where a turn has no loss, all turns of the assistant say whether they have."""
    (table,) = tables(name, PLAIN, LONG).values()
    told = [[m.get(key) for m in row["messages"]] for row in table.rows]
    assert told == [[None, on], [None, None, off, None, on]]
    (table,) = tables(name, PLAIN, LEARNT).values()
    assert not any(key in message for row in table.rows for message in row["messages"])


@pytest.mark.parametrize("name", ["trl", "sharegpt", "llamafactory", "alpaca"])
def test_a_turn_without_loss_is_refused_where_it_would_be_learnt(name: str) -> None:
    """The other rows are written, and the reason is counted."""
    (table,) = tables(name, LONG, PLAIN, LONG).values()
    assert table.sample_ids == ["1"]
    assert table.reasons() == {"turns of the assistant without loss": 2}


@pytest.mark.parametrize("name", ["sharegpt", "llamafactory"])
def test_sharegpt_calls_are_turns(name: str) -> None:
    """Tools are JSON text, a call is a turn of its own, and names are told to be dropped."""
    (table,) = tables(name, THOUGHT, CALLING).values()
    thought = {"from": "gpt", "value": "<think>\nTwo twos.\n</think>\n\n4"}
    assert table.rows == [
        {
            "conversations": [
                {"from": "human", "value": "2+2?"},
                thought,
            ],
            "tools": "",
        },
        {
            "conversations": [
                {"from": "human", "value": "Weather?"},
                {
                    "from": "function_call",
                    "value": '{"name": "weather", "arguments": {"city": "Kiel"}}',
                },
                {"from": "observation", "value": "Rain"},
                {"from": "gpt", "value": "It rains."},
            ],
            "tools": '[{"name": "weather", "parameters": {}}]',
        },
    ]
    assert table.dropped == {"names": 1}


def test_sharegpt_refuses_words_beside_a_call() -> None:
    """A turn of a call holds nothing else."""
    turns = (Turn("user", "W?"), Turn("assistant", "Let me see.", tool_calls=CALLS))
    (table,) = tables("sharegpt", Sample(turns)).values()
    assert table.reasons() == {"a turn that says something and calls tools": 1}


def test_llamafactory_refuses_what_its_reader_would_skip() -> None:
    """The user and the assistant take turns; two answers of tools in a row do not."""
    two = Sample((*CALLING.turns[:3], Turn("tool", "Wind"), CALLING.turns[3]), tools=SCHEMAS)
    asked_twice = Sample((Turn("user", "A"), Turn("user", "B"), Turn("assistant", "C")))
    (table,) = tables("llamafactory", two, asked_twice, LEARNT).values()
    assert table.sample_ids == ["2"]
    assert table.reasons() == {"turns that do not alternate": 2}
    assert len(tables("sharegpt", two, asked_twice)["train"].rows) == 2
    prompt = PreferencePair((*ASK, Turn("assistant", "Well,")), PAIR.chosen, PAIR.rejected)
    assert tables("llamafactory", prompt)["pairs"].rows == []


def test_alpaca_rows_have_system_and_history_where_any_has() -> None:
    """All rows have the same columns, none of them null."""
    (table,) = tables("alpaca", PLAIN, LEARNT, CALLING).values()
    assert table.rows == [
        {"instruction": "Hi", "input": "", "output": "Hello", "system": "", "history": []},
        {
            "instruction": "C",
            "input": "",
            "output": "D",
            "system": "Be brief.",
            "history": [["A", "B"]],
        },
    ]
    assert table.reasons() == {"tools or tool calls": 1}
    (plain,) = tables("alpaca", PLAIN).values()
    assert plain.rows == [{"instruction": "Hi", "input": "", "output": "Hello"}]


def test_pairs_and_answers_make_two_tables() -> None:
    """Each answer of a pair is an unpaired row, too; a rated answer is one and no pair."""
    found = tables("trl", UNSCORED, RATED)
    no, yes = ([{"role": "assistant", "content": text}] for text in ("?", "Yes."))
    assert found["pairs"].rows == [{"prompt": said("Why?"), "chosen": yes, "rejected": no}]
    assert found["unpaired"].rows == [
        {"prompt": said("Why?"), "completion": yes, "label": True},
        {"prompt": said("Why?"), "completion": no, "label": False},
        {
            "prompt": said("Why?"),
            "completion": [{"role": "assistant", "content": "Hm."}],
            "label": False,
        },
    ]
    assert found["unpaired"].sample_ids == ["0", "0", "1"]
    assert list(tables("trl", RATED)) == ["unpaired"]


def test_scores_are_a_column_only_where_all_pairs_have_them() -> None:
    """A null for the others would be no score."""
    assert tables("messages", PAIR)["pairs"].rows[0]["chosen_score"] == 4.0
    table = tables("messages", PAIR, UNSCORED)["pairs"]
    assert {name for row in table.rows for name in row} == {"prompt", "chosen", "rejected"}
    assert table.dropped == {"chosen_score": 1, "rejected_score": 1}
    assert tables("alpaca", PAIR)["pairs"].dropped == {"scores": 1}


def test_preferences_in_each_other_format() -> None:
    """Literally, as the readers of axolotl and LLaMA-Factory expect them."""
    thought = RatedAnswer(ASK, (Turn("assistant", "Hm.", reasoning="R"),), desirable=True)
    answer = "<think>\nR\n</think>\n\nHm."
    found = tables("axolotl", PAIR, thought)
    assert found["pairs"].rows == [
        {
            "messages": said("Why?"),
            "chosen": {"role": "assistant", "content": "So."},
            "rejected": {"role": "assistant", "content": "No."},
        }
    ]
    assert found["pairs"].dropped == {"scores": 1}
    assert found["unpaired"].rows[2] == {"completion": said("Why?", answer), "label": True}
    assert found["unpaired"].dropped == {"scores": 2}
    assert tables("messages", PAIR, UNSCORED)["unpaired"].dropped == {"scores": 2}
    found = tables("llamafactory", PAIR, thought)
    asked = [{"from": "human", "value": "Why?"}]
    assert found["pairs"].rows == [
        {
            "conversations": asked,
            "chosen": {"from": "gpt", "value": "So."},
            "rejected": {"from": "gpt", "value": "No."},
        }
    ]
    assert found["unpaired"].rows[2] == {
        "conversations": [*asked, {"from": "gpt", "value": answer}],
        "kto_tag": True,
    }
    found = tables("alpaca", PAIR, thought)
    question = {"instruction": "Why?", "input": ""}
    assert found["pairs"].rows == [question | {"chosen": "So.", "rejected": "No."}]
    assert found["unpaired"].rows[2] == question | {"output": answer, "kto_tag": True}


@pytest.mark.parametrize("name", ["axolotl", "sharegpt", "alpaca"])
def test_answers_of_several_turns_are_refused(name: str) -> None:
    """These formats have one message for an answer."""
    several = (Turn("assistant", "A"), Turn("user", "B"), Turn("assistant", "C"))
    found = tables(name, RatedAnswer(ASK, several, desirable=True))["unpaired"]
    assert found.reasons() == {"answers of several turns": 1}


def test_media_and_ids_are_told_where_they_are_dropped() -> None:
    """Pictures have a place in no format, ids of calls in those with calls as objects."""
    calls = json.dumps([{"id": "c1", **CALLED}])
    turns = (Turn("user", "<image>"), Turn("assistant", "", tool_calls=calls))
    sample = Sample(turns, media='{"images": ["a.png"]}')
    assert tables("messages", sample)["train"].dropped == {"media": 1}
    assert tables("sharegpt", sample)["train"].dropped == {"media": 1, "ids of tool calls": 1}
    answered = Sample((*turns, Turn("tool", "Rain"), Turn("assistant", "It rains.")))
    ids = {"ids of tool calls": 1}
    for name, also in (("messages", {}), ("trl", {}), ("axolotl", {}), ("sharegpt", ids)):
        (table,) = tables(name, answered, PLAIN).values()
        assert table.dropped == {"tool_call_id of tools": 1, **also}


def _ready(name: str, *samples: AnySample) -> dict[str, Any]:
    found = list(tables(name, *samples).values())
    texts = FORMATS[name].ready(found, "preference version 3")
    return {file: yaml.safe_load(text) for file, text in texts.items()}


def test_trl_is_told_by_a_configuration_for_each_trainer() -> None:
    """The loss of SFT is that of this pipeline: what the assistant says."""
    assert _ready("trl", PLAIN) == {
        "trl_sft.yaml": {
            "datasets": [{"path": "parquet", "data_files": "train.parquet"}],
            "assistant_only_loss": True,
        }
    }
    assert _ready("trl", PAIR) == {
        "trl_dpo.yaml": {"datasets": [{"path": "parquet", "data_files": "pairs.parquet"}]},
        "trl_kto.yaml": {"datasets": [{"path": "parquet", "data_files": "unpaired.parquet"}]},
    }


def test_axolotl_yaml_names_type_and_fields() -> None:
    """As axolotl's schemas of SFT, DPO and KTO data sets have them."""
    of_sft = {
        "path": "train.parquet",
        "type": "chat_template",
        "field_messages": "messages",
        "roles_to_train": ["assistant"],
    }
    template = {"chat_template": "tokenizer_default"}
    assert _ready("axolotl", PLAIN) == {"axolotl_sft.yaml": {"datasets": [of_sft]} | template}
    weighted = of_sft | {"message_field_training": "train"}
    assert _ready("axolotl", LONG) == {"axolotl_sft.yaml": {"datasets": [weighted]} | template}
    assert _ready("axolotl", PAIR) == {
        "axolotl_dpo.yaml": {
            "datasets": [
                {
                    "path": "pairs.parquet",
                    "type": "chat_template.default",
                    "field_messages": "messages",
                }
            ],
            "rl": "dpo",
        }
        | template,
        "axolotl_kto.yaml": {
            "datasets": [{"path": "unpaired.parquet", "type": "chatml.argilla_chat"}],
            "rl": "kto",
            "remove_unused_columns": False,
        },
    }


def test_dataset_info_names_the_columns_that_are_there() -> None:
    """LLaMA-Factory looks each of them up in every row."""
    assert _ready("llamafactory", PLAIN, CALLING) == {
        "dataset_info.json": {
            "preference_version_3": {
                "file_name": "train.jsonl",
                "formatting": "sharegpt",
                "columns": {"messages": "conversations", "tools": "tools"},
            }
        }
    }
    assert _ready("llamafactory", PAIR) == {
        "dataset_info.json": {
            "preference_version_3_pairs": {
                "file_name": "pairs.jsonl",
                "formatting": "sharegpt",
                "columns": {
                    "messages": "conversations",
                    "chosen": "chosen",
                    "rejected": "rejected",
                },
                "ranking": True,
            },
            "preference_version_3_unpaired": {
                "file_name": "unpaired.jsonl",
                "formatting": "sharegpt",
                "columns": {"messages": "conversations", "kto_tag": "kto_tag"},
            },
        }
    }


def test_a_wrong_format_lists_those_that_there_are() -> None:
    """In the words of the command line."""
    with pytest.raises(UserError, match="got 'csv'; allowed are messages, sharegpt, alpaca, trl"):
        format_named("csv")
