"""Tokens of samples, as the model that is trained reads them."""

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.chat_tokens import messages, special_tokens
from zip_pipeline.compression.state import TextTokens
from zip_pipeline.compression.tokens import TINY_MODEL
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.ingest import ingest
from zip_pipeline.sample_data import write_sample_data
from zip_pipeline.samples import (
    STAGES,
    AnySample,
    PreferencePair,
    RatedAnswer,
    Sample,
    Stage,
    Turn,
    frame_of,
    sample_columns,
    turns_of_column,
)
from zip_pipeline.training import tokens
from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.rows import answer_rows, conversation_rows
from zip_pipeline.training.tokens import trained_tokens

_QUESTION, _ANSWER = Turn("user", "one two"), Turn("assistant", "three")
_CONTEXT = replace(_ANSWER, loss=False)
_TOOLS = '[{"name": "one"}]'
_CONVERSATIONS = (
    Sample((_QUESTION, _ANSWER)),
    Sample((_QUESTION, _CONTEXT, _QUESTION, _ANSWER)),
    Sample((_QUESTION, replace(_ANSWER, reasoning="one"))),
    Sample((_QUESTION, _ANSWER), tools=_TOOLS),
)
_ANSWERS = (
    PreferencePair((_QUESTION,), (_ANSWER,), (Turn("assistant", "one two three"),)),
    RatedAnswer((_QUESTION,), (_ANSWER,), desirable=True),
    RatedAnswer((_QUESTION,), (_ANSWER,), desirable=False, tools=_TOOLS),
)
_WHOLE = 1 << 30


def _table(stage: Stage, *samples: AnySample) -> pl.DataFrame:
    return frame_of(stage, [sample_columns(sample) for sample in samples])


def test_a_conversation_counts_as_the_model_reads_it() -> None:
    """A start, and each turn with its role and its end; targets are the words and their end."""
    counts = trained_tokens("tiny").count(_table("sft", *_CONVERSATIONS), "sft")
    # "three" are three tokens, all others one; <think> and the schemas are spelled out.
    assert counts.rows() == [(10, 4), (19, 4), (23, 17), (24, 4)]


def test_a_pair_counts_as_its_two_rows_and_a_rated_answer_as_one() -> None:
    """The prompt is read twice, before either answer."""
    counts = trained_tokens("tiny").count(_table("preference", *_ANSWERS), "preference")
    assert counts.rows() == [(10 + 12, 4 + 6), (10, 4), (24, 4)]


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[Stage, pl.DataFrame]:
    """Return the samples of the generator, and those with what it has none of."""
    root = DataRoot(tmp_path_factory.mktemp("pool"))
    write_sample_data(root.path, state="x4", scale=0.25)
    special: dict[Stage, pl.DataFrame] = {
        "sft": _table("sft", *_CONVERSATIONS),
        "preference": _table("preference", *_ANSWERS),
    }
    return {
        stage: pl.concat(
            [
                special[stage],
                *(ingest(path, stage, batch="b").samples for path in root[stage].raw.iterdir()),
            ]
        )
        for stage in STAGES
    }


def test_counts_equal_the_length_of_the_applied_template(
    pools: dict[Stage, pl.DataFrame],
) -> None:
    """Sample by sample, for more than a thousand of them."""
    samples, tokenizer = pools["sft"], tiny_tokenizer()
    special = special_tokens(tokenizer)
    lengths = [
        len(tokenizer.apply_chat_template(messages(turns, special, tools), return_dict=False))
        for turns, tools in zip(turns_of_column(samples["turns"]), samples["tools"], strict=True)
    ]
    assert len(lengths) > 1000
    assert trained_tokens("tiny").count(samples, "sft")["num_tokens"].to_list() == lengths


@pytest.mark.parametrize("stage", STAGES)
def test_counts_are_what_a_trainer_reads(pools: dict[Stage, pl.DataFrame], stage: Stage) -> None:
    """Its own counts are those of whole rows; cut at a maximum length, it reads no more."""
    samples, tokenizer = pools[stage], tiny_tokenizer()

    def rows(max_length: int) -> tuple[int, int]:
        read = (
            conversation_rows(samples, stage, tokenizer, max_length).counts
            if stage == "sft"
            else answer_rows(samples, tokenizer, max_length).counts
        )
        return read.num_tokens, read.num_target_tokens

    counted = trained_tokens("tiny").count(samples, stage).sum().row(0)
    assert counted == rows(_WHOLE)
    assert all(cut < whole for cut, whole in zip(rows(60), counted, strict=True))


def test_another_template_or_tokenizer_is_another_identity(tmp_path: Path) -> None:
    """Weights are not looked at."""
    folder = shutil.copytree(TINY_MODEL, tmp_path / "model")
    tiny, same = trained_tokens("tiny"), trained_tokens("tiny", {"model": str(folder)})
    assert (tiny.name, same.name) == ("tiny, template tiny", f"{folder}, template tiny")
    next(folder.glob("*.safetensors")).unlink()
    assert tiny.identity == same.identity
    path = folder / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    vicuna = trained_tokens("tiny", {"template": "vicuna"})
    hub = trained_tokens("mistral-7b")
    assert len({tiny.identity, same.identity, vicuna.identity, hub.identity}) == 4


def test_the_template_of_a_model_of_its_own_is_part_of_the_identity(tmp_path: Path) -> None:
    """It lies in the files of the tokenizer."""
    tiny_tokenizer().save_pretrained(tmp_path)
    own = {"model": str(tmp_path), "template": "model"}
    before = trained_tokens("tiny", own).identity
    (tmp_path / "chat_template.jinja").write_text("{% generation %}x{% endgeneration %}")
    assert trained_tokens("tiny", own).identity != before


def test_without_transformers_texts_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the tokenizer of the preset, and nothing is known of targets."""
    monkeypatch.setattr(tokens, "find_spec", lambda _: None)
    assert trained_tokens("tiny") == TextTokens("tiny")
    samples = _table("sft", *_CONVERSATIONS[:2])
    assert trained_tokens("tiny").count(samples, "sft").rows() == [(14, None), (28, None)]


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """It is named."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"model: cannot load '{tmp_path}'"):
        trained_tokens("tiny", {"model": str(tmp_path)}).count(
            _table("sft", *_CONVERSATIONS), "sft"
        )
