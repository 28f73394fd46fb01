"""How many tokens a trainer reads of each sample, and how many of them it learns to write."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from zip_pipeline.chat_tokens import encode
from zip_pipeline.compression.state import TOKENS_SCHEMA, TextTokens, TokenCounter
from zip_pipeline.compression.tokens import prepare_threads
from zip_pipeline.errors import require
from zip_pipeline.files import fingerprint
from zip_pipeline.samples import Stage, turns_of_column
from zip_pipeline.settings import training_settings
from zip_pipeline.training.presets import TEMPLATES, Preset, load_preset, templated_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENIZER_FILES = frozenset({".json", ".model", ".txt", ".jinja"})
_BATCH_SAMPLES = 1024


@dataclass(frozen=True)
class PresetTokens:
    """Counts tokens by the tokenizer and chat template of a preset, whole samples, as trained on.

    A conversation counts once. A pair counts as the two rows that KTO reads, with the prompt in
    both, a rated answer as its one row. Nothing is cut at the preset's ``max_length``.
    """

    preset: Preset

    @property
    def name(self) -> str:
        """Model and template."""
        return f"{self.preset.model}, template {self.preset.template}"

    @property
    def identity(self) -> str:
        """A hash of the template and the tokenizer's files, or the model's commit on the hub."""
        folder = Path(self.preset.source)
        name = self.preset.template
        # The model's own template lies in the files of its tokenizer.
        parts = [name, TEMPLATES[name].text if name in TEMPLATES else ""]
        if not folder.is_dir():
            return fingerprint([*parts, self.preset.source, str(self.preset.revision)])
        for path in sorted(p for p in folder.iterdir() if p.suffix in _TOKENIZER_FILES):
            parts += [path.name, hashlib.blake2b(path.read_bytes()).hexdigest()]
        return fingerprint(parts)

    def check(self) -> None:
        """Raise UserError where what counts them is not installed."""
        require("transformers", f"preset {self.preset.name}: counting the tokens of its model")

    @cached_property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        self.check()
        prepare_threads()
        preset = self.preset
        return templated_tokenizer(preset.source, preset.revision, preset.template)

    def count(self, samples: pl.DataFrame, stage: Stage) -> pl.DataFrame:
        """Return tokens and target tokens of each row of a pool table (``TOKENS_SCHEMA``).

        Raises:
            UserError: transformers is not installed, or there is no such model.
        """
        count = self._of_conversations if stage == "sft" else self._of_answers
        parts = [count(part) for part in samples.iter_slices(_BATCH_SAMPLES)]
        return pl.concat([TOKENS_SCHEMA.to_frame(), *parts])

    def _of_conversations(self, samples: pl.DataFrame) -> pl.DataFrame:
        encoded = encode(
            self._tokenizer, turns_of_column(samples["turns"]), samples["tools"].to_list()
        )
        # As in training, nothing predicts the first token.
        counts = [(len(e.input_ids), sum(e.assistant_mask[1:])) for e in encoded]
        return pl.DataFrame(counts, schema=TOKENS_SCHEMA, orient="row")

    def _of_answers(self, samples: pl.DataFrame) -> pl.DataFrame:
        prompts, tools = turns_of_column(samples["prompt"]), samples["tools"].to_list()
        opened = encode(self._tokenizer, prompts, tools, open_answer=True)
        num_tokens, num_targets = [0] * len(prompts), [0] * len(prompts)
        for column in ("chosen", "rejected"):
            answers = turns_of_column(samples[column])
            there = [place for place, answer in enumerate(answers) if answer]
            both = [prompts[place] + answers[place] for place in there]
            encoded = encode(self._tokenizer, both, [tools[place] for place in there])
            for place, row in zip(there, encoded, strict=True):
                num_tokens[place] += len(row.input_ids)
                num_targets[place] += len(row.input_ids) - len(opened[place].input_ids)
        return pl.DataFrame([num_tokens, num_targets], schema=TOKENS_SCHEMA)


def configured_tokens(data_root: Path) -> TokenCounter:
    """Return what counts the tokens of a data root: :func:`trained_tokens` of its ``[training]``.

    Raises:
        UserError: the table is wrong.
    """
    training = training_settings(data_root)
    return trained_tokens(training.preset, training.overrides)


def trained_tokens(preset: str, overrides: Mapping[str, Any] | None = None) -> TokenCounter:
    """Return what counts the tokens that a model trained with a preset reads.

    Without transformers, which probe and training need, it is those of the serialised text by the
    tokenizer of the preset.

    Raises:
        UserError: there is no such preset, or an override is wrong.
    """
    loaded = load_preset(preset, overrides)
    if find_spec("transformers") is None:
        return TextTokens("tiny" if loaded.model == "tiny" else loaded.source)
    return PresetTokens(loaded)
