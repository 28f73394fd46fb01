"""Chat templates: which tokens a conversation has, and on which of them the loss falls."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from zip_pipeline.chat_tokens import encode
from zip_pipeline.samples import Turn
from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.presets import (
    TEMPLATES,
    apply_template,
    template_text,
    templated_tokenizer,
)
from zip_pipeline_tests.training.small_tokenizers import templated

OWN = (
    "{% for message in messages %}{% if message.role == 'assistant' %}{%- generation -%}"
    "{{ message.content }}{%- endgeneration -%}{{ eos_token }}"
    "{{ message.tool_calls | tojson if message.tool_calls else '' }}"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}"
)
CONVERSATION = (
    Turn("system", "be brief"),
    Turn("user", "hello"),
    Turn("assistant", "hello there", '[{"f": 1}]'),
    Turn("tool", "2"),
    Turn("assistant", "2!"),
)


def pieces(tokenizer: PreTrainedTokenizerBase, turns: tuple[Turn, ...]) -> list[tuple[str, int]]:
    """Return runs of equal mask: the text as the tokenizer wrote it down, and the mask."""
    (encoded,) = encode(tokenizer, [turns])
    assert len(encoded.input_ids) == len(encoded.assistant_mask)
    runs: list[tuple[str, int]] = []
    for token, speaks in zip(encoded.input_ids, encoded.assistant_mask, strict=True):
        text = str(tokenizer.convert_ids_to_tokens(token)).translate({0x120: " ", 0x10A: "\n"})
        if runs and runs[-1][1] == speaks:
            runs[-1] = (runs[-1][0] + text.replace("▁", " "), speaks)
        else:
            runs.append((text.replace("▁", " "), speaks))
    return runs


def test_tiny_template_masks_all_but_the_assistant() -> None:
    """Loss falls on the assistant's words, its tool calls and its end token; on nothing else."""
    assert pieces(tiny_tokenizer(), CONVERSATION) == [
        ("<|bos|><|system|>be brief<|end|><|user|>hello<|end|><|assistant|>", 0),
        ('hello there[{"f": 1}]<|end|>', 1),
        ("<|tool|>2<|end|><|assistant|>", 0),
        ("2!<|end|>", 1),
    ]


def test_tiny_template_gives_these_tokens() -> None:
    """Every token and every mask of a conversation, one by one."""
    tokenizer = tiny_tokenizer()
    (encoded,) = encode(tokenizer, [(Turn("user", "1+1"), Turn("assistant", "2"))])
    tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids)
    assert list(zip(tokens, encoded.assistant_mask, strict=True)) == [
        ("<|bos|>", 0),
        ("<|user|>", 0),
        ("1", 0),
        ("+", 0),
        ("1", 0),
        ("<|end|>", 0),
        ("<|assistant|>", 0),
        ("2", 1),
        ("<|end|>", 1),
    ]


def test_vicuna_template_masks_all_but_the_assistant() -> None:
    """Loss falls on the assistant's words with the space before them and on the end token."""
    tokenizer = templated("vicuna")
    assert pieces(tokenizer, (*CONVERSATION[:2], Turn("assistant", "hello there"))) == [
        ("<s>be brief USER: hello ASSISTANT:", 0),
        (" hello there</s>", 1),
    ]
    assert pieces(tokenizer, (*CONVERSATION[1:2], CONVERSATION[4], *CONVERSATION[3:])) == [
        (
            "<s>A chat between a curious user and an artificial intelligence assistant. The "
            "assistant gives helpful, detailed, and polite answers to the user's questions. "
            "USER: hello ASSISTANT:",
            0,
        ),
        (" 2!</s>", 1),
        ("TOOL: 2 ASSISTANT:", 0),
        (" 2!</s>", 1),
    ]


def test_llama_3_template_masks_all_but_the_assistant() -> None:
    """Loss falls on the assistant's words and on the end-of-turn token, not on headers."""
    tokenizer = templated("llama-3")

    def header(role: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n"

    opening = (
        f"<|begin_of_text|>{header('system')}be brief<|eot_id|>{header('user')}hello<|eot_id|>"
    )
    assert pieces(tokenizer, CONVERSATION) == [
        (opening + header("assistant"), 0),
        ('hello there[{"f": 1}]<|eot_id|>', 1),
        (f"{header('ipython')}2<|eot_id|>{header('assistant')}", 0),
        ("2!<|eot_id|>", 1),
    ]


def test_chatml_template_masks_all_but_the_assistant() -> None:
    """Loss falls on the assistant's words and on the end token, not on the line end behind it."""
    opening = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhello<|im_end|>"
    assert pieces(templated("chatml"), CONVERSATION) == [
        (opening + "\n<|im_start|>assistant\n", 0),
        ('hello there[{"f": 1}]<|im_end|>', 1),
        ("\n<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\n", 0),
        ("2!<|im_end|>", 1),
    ]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_open_answer_is_the_beginning_of_the_whole(name: str) -> None:
    """What introduces an answer at inference is what stands before it in training."""
    tokenizer = templated(name)
    (opening,) = encode(tokenizer, [CONVERSATION[:2]], open_answer=True)
    (whole,) = encode(tokenizer, [(*CONVERSATION[:2], Turn("assistant", "hello there"))])
    num_opening = len(opening.input_ids)
    assert whole.input_ids[:num_opening] == opening.input_ids
    num_said = len(whole.input_ids) - num_opening
    assert whole.assistant_mask == bytes([0] * num_opening + [1] * num_said)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_content_cannot_forge_a_turn(name: str) -> None:
    """A special token spelled out by a user is text: the mask stays on the true answer."""
    tokenizer = templated(name)
    end = TEMPLATES[name].end_token
    (encoded,) = encode(tokenizer, [(Turn("user", f"hello{end}"), Turn("assistant", "2"))])
    num_ends = encoded.input_ids.count(tokenizer.convert_tokens_to_ids(end))
    (plain,) = encode(tokenizer, [(Turn("user", "hello"), Turn("assistant", "2"))])
    assert num_ends == plain.input_ids.count(tokenizer.convert_tokens_to_ids(end))
    assert sum(encoded.assistant_mask) == sum(plain.assistant_mask)


def test_a_template_of_another_family_is_refused() -> None:
    """A tokenizer that lacks the template's tokens is an error that names the token."""
    with pytest.raises(ValueError, match="vicuna needs the token </s>"):
        apply_template(tiny_tokenizer(), "vicuna")


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A folder without a model is an error that says what to give."""
    with pytest.raises(ValueError, match=r"cannot load .* Give 'tiny', a folder"):
        templated_tokenizer(str(tmp_path), None, "tiny")


def test_the_models_own_template_is_taken_as_it_is() -> None:
    """Template and tokens stay; padding falls back to the end token where there is none for it."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = OWN
    apply_template(tokenizer, "model")
    assert tokenizer.chat_template == OWN
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")
    tokenizer.pad_token = None
    apply_template(tokenizer, "model")
    assert tokenizer.pad_token == "<|end|>"
    assert pieces(tokenizer, CONVERSATION[1:3]) == [
        ("hello", 0),
        ("hello there", 1),
        ('<|end|>[{"f": 1}]', 0),
    ]


@pytest.mark.parametrize(
    ("template", "end_token", "message"),
    [
        (None, "<|end|>", "no chat template"),
        ({"default": OWN, "tools": OWN}, "<|end|>", "several chat templates, not one"),
        (
            "{{ messages }} {# generation #}",
            "<|end|>",
            "a chat template without {% generation %} marks around the assistant's words",
        ),
        (OWN, None, r"no end token (eos_token)"),
    ],
)
def test_a_template_of_the_model_that_training_cannot_use_is_refused(
    template: object, end_token: str | None, message: str
) -> None:
    """The error says what is missing, and what to choose."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template, tokenizer.eos_token = template, end_token
    with pytest.raises(ValueError) as error:
        apply_template(tokenizer, "model")
    assert str(error.value) == (
        f"template: model takes the tokenizer's own, but it has {message}. Choose one of tiny, "
        "vicuna, chatml, llama-3, or mend it in a local copy of the model"
    )


def test_a_change_of_the_models_own_template_is_seen(tmp_path: Path) -> None:
    """The text that identifies a run is that of the model's folder."""
    tokenizer = tiny_tokenizer()
    for text in (OWN, OWN + "!"):
        tokenizer.chat_template = text
        tokenizer.save_pretrained(tmp_path)
        assert template_text("model", str(tmp_path), None) == text
    assert template_text("tiny", str(tmp_path), None) == TEMPLATES["tiny"].text


def test_no_conversations_give_no_tokens() -> None:
    """An empty list is encoded as one."""
    assert encode(tiny_tokenizer(), []) == []
