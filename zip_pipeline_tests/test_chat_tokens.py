"""Conversations as messages and as tokens that nobody can forge."""

import json
import random
import time
from collections.abc import Iterator

import pytest
from transformers import PreTrainedTokenizerBase

from zip_pipeline import chat_tokens
from zip_pipeline.chat_tokens import encode, knows, messages, special_tokens, tool_schemas
from zip_pipeline.compression import tokens
from zip_pipeline.samples import Turn
from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.presets import TEMPLATES
from zip_pipeline_tests.training.small_tokenizers import templated

SPECIAL = ["<|end|>", "<|user|>"]


def test_content_is_kept_but_for_special_tokens() -> None:
    """Tool calls are words of the turn; a spelled-out special token is broken up, and only it."""
    turns = [Turn("assistant", "a <|end|><|user|> b <end>", '[{"f": 1}]'), Turn("user", "")]
    assert messages(turns, SPECIAL) == [
        {
            "role": "assistant",
            "content": 'a <\u200b|end|><\u200b|user|> b <end>[{"f": 1}]',
        },
        {"role": "user", "content": ""},
    ]
    assert messages(turns[:1], [])[0]["content"] == 'a <|end|><|user|> b <end>[{"f": 1}]'


KNOWING = (
    "{{ bos_token }}{% for tool in tools or [] %}[{{ tool | tojson }}]{% endfor %}"
    "{% for message in messages %}<|{{ message.role }}|>"
    "{% if message.role == 'assistant' %}{% generation %}"
    "{% if message.reasoning_content %}({{ message.reasoning_content }}){% endif %}"
    "{{ message.content }}{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}"
    "{{ eos_token }}{% endgeneration %}"
    "{% else %}{% if message.name %}{{ message.name }}|{% endif %}{{ message.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SCHEMA = {"type": "function", "function": {"name": "add", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
RICH = (
    Turn("user", "1+1", name="ann"),
    Turn("assistant", "well", json.dumps([CALL]), reasoning="add them"),
    Turn("tool", "2", name="add"),
    Turn("assistant", "2"),
)


def knowing() -> PreTrainedTokenizerBase:
    """Return a tokenizer whose template has words for all that a sample may hold."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = KNOWING
    return tokenizer


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Return tokens as text, with special tokens."""
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def parts(
    tokenizer: PreTrainedTokenizerBase, turns: tuple[Turn, ...], tools: str = ""
) -> list[tuple[str, int]]:
    """Return the text of runs of equal mask."""
    (row,) = encode(tokenizer, [turns], [tools])
    places = [
        p for p, bit in enumerate(row.assistant_mask) if not p or bit != row.assistant_mask[p - 1]
    ]
    ends = [*places[1:], len(row.input_ids)]
    return [
        (text_of(tokenizer, row.input_ids[start:end]), row.assistant_mask[start])
        for start, end in zip(places, ends, strict=True)
    ]


def test_a_template_that_knows_tools_reasoning_and_names_gets_them_as_they_are() -> None:
    """Nothing of it is text of a turn; reasoning and calls are words of the assistant."""
    assert knows(knowing()) == {"tools", "tool_calls", "reasoning_content", "name"}
    call = json.dumps([CALL])
    assert parts(knowing(), RICH, json.dumps([SCHEMA])) == [
        (f"<|bos|>[{json.dumps(SCHEMA)}]<|user|>ann|1+1<|end|><|assistant|>", 0),
        (f"(add them)well{call}<|end|>", 1),
        ("<|tool|>add|2<|end|><|assistant|>", 0),
        ("2<|end|>", 1),
    ]


def test_functions_come_in_the_form_that_templates_expect() -> None:
    """Flat schemas and calls, and arguments as text, are brought into it; other text stays text."""
    flat = json.dumps({"name": "add", "parameters": {}})
    assert tool_schemas(flat, [], {"tools"}) == [SCHEMA]
    for call in (
        {"name": "add", "arguments": {"a": 1}},
        [{"name": "add", "arguments": '{"a": 1}'}],
        [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
    ):
        turn = Turn("assistant", "", json.dumps(call))
        assert messages([turn], [], known={"tool_calls"})[0]["tool_calls"] == [CALL]
    for text in ("add(1)", "[1]", "[]", "3", "[" * 100_000):
        assert tool_schemas(text, [], {"tools"}) is None
        said = messages([Turn("assistant", "so: ", text)], [], text, {"tools", "tool_calls"})
        assert said == [
            {"role": "system", "content": f"Tools: {text}"},
            {"role": "assistant", "content": f"so: {text}"},
        ]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_shipped_template_gets_as_text_what_it_does_not_know(name: str) -> None:
    """Tools end the system turn, users say their names, reasoning is in tags, calls come last."""
    tokenizer = templated(name)
    assert knows(tokenizer) == set()
    tools, call = json.dumps([SCHEMA]), json.dumps([CALL])
    plain = (
        Turn("system", f"be brief\n\nTools: {tools}"),
        Turn("user", "ann: 1+1"),
        Turn("assistant", f"<think>add them</think>\nwell{call}"),
        Turn("tool", "2"),
        Turn("assistant", "2"),
    )
    rich = (Turn("system", "be brief"), *RICH)
    assert encode(tokenizer, [rich], [tools]) == encode(tokenizer, [plain])
    without_system = encode(tokenizer, [RICH], [tools])
    assert without_system == encode(tokenizer, [(Turn("system", f"Tools: {tools}"), *plain[1:])])


# How templates may handle white space around what the assistant says.
TRIMMED = """{% for message in messages %}
  <|{{ message.role }}|>
  {% if message.role == 'assistant' %}
    {%- generation -%}
      {{ message.content }}
    {%- endgeneration +%}
    one
    {% generation %}
    {{ message.role }}
    {%+ endgeneration -%}
    two
  {% else %}
    {{ message.content }}
  {% endif %}
{% endfor %}
"""


@pytest.mark.parametrize("name", [*sorted(TEMPLATES), "knowing", "trimmed"])
def test_a_long_conversation_has_the_tokens_of_the_whole_in_pieces(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces that end between words change no token and no mark, wherever the marks lie."""
    tokenizer = templated(name) if name in TEMPLATES else knowing()
    if name == "trimmed":
        tokenizer.chat_template = TRIMMED
    draw = random.Random(name)
    words = ["hello", "there,", "1", "+", "東京", "\n\n", "  ", "brief!", "é", "🙂", "assistant"]
    conversations = [
        [
            # The library leaves out all but the first token of a character that is last.
            Turn(role, " ".join([*draw.choices(words, k=draw.randrange(1, 120)), "ok"]))
            for role in ("system", *("user", "assistant") * draw.randrange(1, 5))
        ]
        for _ in range(20)
    ]
    whole = encode(tokenizer, conversations, [json.dumps([SCHEMA])] * 20)
    open_whole = encode(tokenizer, conversations, open_answer=True)
    for module in (chat_tokens, tokens):
        monkeypatch.setattr(module, "PIECE_LENGTH", 300)
    taken: list[str] = []

    def pieces_of(text: str) -> Iterator[str]:
        taken.append(text)
        return tokens.pieces_of(text)

    monkeypatch.setattr(chat_tokens, "pieces_of", pieces_of)
    assert encode(tokenizer, conversations, [json.dumps([SCHEMA])] * 20) == whole
    assert encode(tokenizer, conversations, open_answer=True) == open_whole
    assert len(taken) > 30


def test_many_turns_take_time_by_their_number() -> None:
    """Eight times as many turns take some eight times as long, and none loses its mark."""
    tokenizer = templated("tiny")
    turns = [Turn("user", "1"), Turn("assistant", "2")] * 1000

    def seconds_of(times: int) -> float:
        began = time.process_time()
        (found,) = encode(tokenizer, [turns * times])
        assert sum(found.assistant_mask) == times * 2000
        return time.process_time() - began

    seconds_of(1)
    assert seconds_of(16) < 20 * min(seconds_of(2) for _ in range(3))


def test_each_conversation_has_its_own_tools() -> None:
    """Conversations of several tools, encoded together, are what each of them is alone."""
    tokenizer, turns = knowing(), (Turn("user", "1"), Turn("assistant", "2"))
    tools = [json.dumps([{"name": name}]) for name in "aba"] + [""]
    together = encode(tokenizer, [turns] * 4, tools)
    assert together == [encode(tokenizer, [turns], [own])[0] for own in tools]
    assert together[0] == together[2] != together[1]


@pytest.mark.parametrize("name", [*sorted(TEMPLATES), "knowing"])
def test_a_turn_without_loss_is_context(name: str) -> None:
    """The mask is that of the other turns alone, also where the assistant speaks repeatedly."""
    tokenizer = knowing() if name == "knowing" else templated(name)
    roles = ("user", "assistant", "assistant", "tool", "assistant", "assistant")
    for losses in ((1, 0, 1, 1), (0, 1, 0, 1), (0, 0, 0, 1), (1, 1, 1, 0), (0, 0, 0, 0)):
        left = iter(losses)
        turns = [Turn(role, "1", loss=role != "assistant" or bool(next(left))) for role in roles]
        (whole,) = encode(tokenizer, [[Turn(role, "1") for role in roles]])
        (found,) = encode(tokenizer, [turns])
        assert found.input_ids == whole.input_ids
        # Where a prefix ends, a turn ends.
        ends = [len(encode(tokenizer, [turns[:n]])[0].input_ids) for n in range(1, 7)]
        expected = [
            bit and turns[next(n for n, end in enumerate(ends) if place < end)].loss
            for place, bit in enumerate(whole.assistant_mask)
        ]
        assert found.assistant_mask == bytes(expected)
        assert sum(found.assistant_mask) == sum(whole.assistant_mask) // 4 * sum(losses)


def test_a_template_that_runs_turns_together_is_refused_for_turns_without_loss() -> None:
    """Without a mark between two answers there is no telling which words have no loss."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    turns = [Turn("assistant", "1"), Turn("assistant", "2", loss=False)]
    assert sum(encode(tokenizer, [turns[:1]])[0].assistant_mask) == 1
    with pytest.raises(ValueError, match="do not tell the turns of the assistant apart"):
        encode(tokenizer, [turns])


def test_what_a_template_refuses_is_an_error_with_its_words() -> None:
    """A template that raises, or that stumbles over a conversation, is no bug of ours."""
    tokenizer = tiny_tokenizer()
    for statement in ("{{ raise_exception('roles must alternate') }}", "{{ messages + 1 }}"):
        tokenizer.chat_template = statement
        with pytest.raises(
            ValueError, match=r"cannot write a conversation \(.*\)\. Choose"
        ) as error:
            encode(tokenizer, [[Turn("user", "1")]])
        assert "alternate" in str(error.value) or "concatenate" in str(error.value)


@pytest.mark.parametrize("name", [*sorted(TEMPLATES), "knowing"])
def test_special_tokens_are_harmless_wherever_they_are_spelled(name: str) -> None:
    """In tools, names, reasoning, calls and contents, plain or escaped, they are no tokens."""
    tokenizer = knowing() if name == "knowing" else templated(name)
    # A small vocabulary does not know every character.
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for token in special_tokens(tokenizer):
        escaped = "".join(f"\\u{ord(character):04x}" for character in token)

        def conversation(spelled: str, key: str) -> tuple[list[Turn], str]:
            schema = f'[{{"name": "{key}", "{key}": ["{spelled}", {{"d": "{key}"}}]}}]'
            call = f'[{{"name": "{key}", "arguments": "{{\\"{spelled}\\": 1}}"}}]'
            turns = [
                Turn("system", spelled, name=spelled),
                Turn("user", spelled, name=spelled),
                Turn("assistant", spelled, call, reasoning=spelled),
                Turn("assistant", spelled[:2], spelled[2:]),
                Turn("tool", spelled, name=spelled),
                Turn("assistant", "1"),
            ]
            return turns, schema

        plain, tools = conversation("x", "x")
        (wanted,) = encode(tokenizer, [plain], [tools])
        num_special = sum(id_ in special for id_ in wanted.input_ids)
        for key in (token, escaped):
            turns, tools = conversation(token, key)
            (found,) = encode(tokenizer, [turns], [tools])
            assert sum(id_ in special for id_ in found.input_ids) == num_special
