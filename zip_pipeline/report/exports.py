"""Samples as the rows that a trainer takes, and the ready files that point at them."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from zip_pipeline.chat_tokens import functions
from zip_pipeline.errors import UserError, require
from zip_pipeline.report.markdown import inert
from zip_pipeline.samples import (
    AnySample,
    PreferencePair,
    RatedAnswer,
    Sample,
    Stage,
    Turn,
    turn_groups,
)
from zip_pipeline.terminal_text import counted

Row: TypeAlias = dict[str, Any]
Turns: TypeAlias = Sequence[Turn]


class NotCarriedError(Exception):
    """A sample that the format has no place for; says what the sample has."""


@dataclass(frozen=True)
class Table:
    """The rows of one file.

    Args:
        name: ``train`` for conversations; ``pairs`` and ``unpaired`` for preferences.
        rows: all of them with the same columns.
        sample_ids: of the sample that each row is from.
        refused: sample ids with what the format cannot carry; these give no row.
        dropped: what rows were written without, and how many of them it was in.
        plain: whether messages have a role and a content and nothing else.
    """

    name: str
    rows: list[Row]
    sample_ids: list[str]
    refused: list[tuple[str, str]]
    dropped: dict[str, int]
    plain: bool

    def reasons(self) -> dict[str, int]:
        """Return how many rows were refused by reason, most first."""
        return dict(Counter(why for _, why in self.refused).most_common())

    def features(self) -> dict[str, dict[str, Any]]:
        """Return the type of each column, in the words of a data card on the hub."""
        names = self.rows[0]
        return {name: _feature([row[name] for row in self.rows], self.plain) for name in names}


_JSON_LIST: dict[str, Any] = {"list": "json"}
_MESSAGE = [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}]
_SCALARS = {str: "string", bool: "bool", float: "float64", dict: "json"}


def _feature(values: Sequence[Any], plain: bool) -> dict[str, Any]:
    # Only lists can be empty, and not all of a column are.
    value = next(value for value in values if value != [])
    if isinstance(value, list):
        if isinstance(value[0], list):
            return {"list": {"list": "string"}}
        return {"list": _MESSAGE} if plain else _JSON_LIST
    if isinstance(value, dict) and plain:
        return {"struct": _MESSAGE}
    return {"dtype": _SCALARS[type(value)]}


class Format:
    """How samples are written for one kind of trainer.

    Args:
        weighted: whether some turn of the assistant in the file has no loss: then all tell it.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    suffix: ClassVar[str] = ".jsonl"
    keeps: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, *, weighted: bool) -> None:
        self.weighted = weighted

    def train(self, sample: Sample) -> Row:
        """Return the row of a conversation; NotCarriedError where there is no place for it."""
        raise NotImplementedError

    def pair(self, pair: PreferencePair) -> Row:
        """Return the row of a pair; NotCarriedError as for :meth:`train`."""
        raise NotImplementedError

    def rated(self, answer: RatedAnswer) -> Row:
        """Return the row of a rated answer; NotCarriedError as for :meth:`train`."""
        raise NotImplementedError

    @classmethod
    def kept(cls, table: str) -> frozenset[str]:
        """Return which of ``_PARTS`` the rows of a table have a place for."""
        return cls.keeps - {"scores"} if table == "unpaired" else cls.keeps

    @classmethod
    def is_plain(cls, table: str) -> bool:
        """Return whether messages of a table have a role and a content and nothing else."""
        return False

    @classmethod
    def ready(cls, tables: Sequence[Table], title: str) -> dict[str, str]:
        """Return the files that point a trainer at the rows, as texts by name."""
        return {}

    @classmethod
    def use(cls, table: Table, title: str) -> str:
        """Return the command or line of Python that takes the rows."""
        return f'datasets.load_dataset("FOLDER", "{table.name}", split="train")'


class Messages(Format):
    """Chat messages as OpenAI writes them, but with arguments of tool calls as objects."""

    name = "messages"
    about = "chat messages with tool calls, reasoning, names and weights (JSONL)"
    keeps = frozenset({"names", "ids of tool calls", "scores", "turns without loss in prompts"})
    weight: ClassVar[str] = "weight"

    def train(self, sample: Sample) -> Row:
        """Return ``messages``, and ``tools`` where there are some."""
        return {"messages": self._messages(sample.turns)} | _tools(sample)

    def pair(self, pair: PreferencePair) -> Row:
        """Return ``prompt``, ``chosen``, ``rejected`` and the scores."""
        row: Row = {
            "prompt": self._messages(pair.prompt, is_prompt=True),
            "chosen": self._messages(pair.chosen),
            "rejected": self._messages(pair.rejected),
        }
        scores = {"chosen_score": pair.chosen_score, "rejected_score": pair.rejected_score}
        return row | _tools(pair) | {k: v for k, v in scores.items() if v is not None}

    def rated(self, answer: RatedAnswer) -> Row:
        """Return ``prompt``, ``completion`` and ``label``."""
        row = {
            "prompt": self._messages(answer.prompt, is_prompt=True),
            "completion": self._messages(answer.answer),
            "label": answer.desirable,
        }
        return row | _tools(answer)

    def _messages(self, turns: Turns, *, is_prompt: bool = False) -> list[Row]:
        return [self._message(turn) for turn in turns]

    def _message(self, turn: Turn) -> Row:
        message: Row = {"role": turn.role, "content": turn.content}
        if turn.reasoning:
            message["reasoning_content"] = turn.reasoning
        if turn.tool_calls:
            message["tool_calls"] = _calls(turn)
        if turn.name:
            message["name"] = turn.name
        if self.weighted and self.weight and turn.role == "assistant":
            message[self.weight] = int(turn.loss)
        return message


class Datasets(Messages):
    """The same rows as a table whose columns know their types."""

    name = "datasets"
    about = "the same as a Parquet table that datasets.load_dataset reads as it is"
    suffix = ".parquet"


class Trl(Messages):
    """Rows for TRL's trainers of SFT, DPO and KTO.

    Source: TRL, "Dataset formats and types": conversational language modeling, preference, and
    unpaired preference; ``tools`` are schemas, and arguments of tool calls are objects.
    """

    name = "trl"
    about = "rows for trl sft, trl dpo and trl kto (Parquet), with their configuration"
    suffix = ".parquet"
    keeps = Messages.keeps - {"turns without loss in prompts"}
    weight = ""
    _METHODS: ClassVar[dict[str, str]] = {"train": "sft", "pairs": "dpo", "unpaired": "kto"}

    def _messages(self, turns: Turns, *, is_prompt: bool = False) -> list[Row]:
        if not is_prompt:
            _check_loss(turns)
        return super()._messages(turns)

    @classmethod
    def ready(cls, tables: Sequence[Table], title: str) -> dict[str, str]:
        """Return a configuration for each table, as ``trl_sft.yaml``."""
        return {f"trl_{cls._METHODS[table.name]}.yaml": cls._settings(table) for table in tables}

    @classmethod
    def _settings(cls, table: Table) -> str:
        method = cls._METHODS[table.name]
        lines = [
            f"# In this folder: {cls.use(table, '')}",
            "# TRL cuts rows at max_length: set it to what your model shall read.",
            "datasets:",
            "  - path: parquet",
            f"    data_files: {table.name}.parquet",
        ]
        if method == "sft":
            lines += [
                "# The loss falls on what the assistant says. The model's chat template must mark",
                "# that ({% generation %}); else name one that does as chat_template_path.",
                "assistant_only_loss: true",
            ]
        return "\n".join(lines) + "\n"

    @classmethod
    def use(cls, table: Table, title: str) -> str:
        """Return the command."""
        method = cls._METHODS[table.name]
        return (
            f"trl {method} --config trl_{method}.yaml --model_name_or_path MODEL --output_dir MINE"
        )


class Axolotl(Messages):
    """Rows for axolotl's ``chat_template`` data sets, its DPO and its KTO.

    Of preferences axolotl reads roles and contents alone, and one turn as the answer.
    """

    name = "axolotl"
    about = "rows for axolotl (Parquet), with the YAML that points at them"
    suffix = ".parquet"
    weight = "train"
    _METHODS: ClassVar[dict[str, str]] = {"train": "sft", "pairs": "dpo", "unpaired": "kto"}
    _TYPES: ClassVar[dict[str, str]] = {
        "train": "chat_template",
        "pairs": "chat_template.default",
        "unpaired": "chatml.argilla_chat",
    }

    def pair(self, pair: PreferencePair) -> Row:
        """Return ``messages``, ``chosen`` and ``rejected``; the last two are a message each."""
        _check_plain(pair)
        return {
            "messages": _said(pair.prompt),
            "chosen": _said([_only(pair.chosen)])[0],
            "rejected": _said([_only(pair.rejected)])[0],
        }

    def rated(self, answer: RatedAnswer) -> Row:
        """Return ``completion``, the whole conversation, and ``label``."""
        _check_plain(answer)
        turns = [*answer.prompt, _only(answer.answer)]
        return {"completion": _said(turns), "label": answer.desirable}

    @classmethod
    def kept(cls, table: str) -> frozenset[str]:
        """Return nothing for preferences."""
        return super().kept(table) if table == "train" else frozenset()

    @classmethod
    def is_plain(cls, table: str) -> bool:
        """Return whether it is one of preferences.

        axolotl puts text in the place of their messages, which a column of JSON would cut up.
        """
        return table != "train"

    def _message(self, turn: Turn) -> Row:
        message = super()._message(turn)
        if self.weight in message:
            message[self.weight] = turn.loss
        return message

    @classmethod
    def ready(cls, tables: Sequence[Table], title: str) -> dict[str, str]:
        """Return a configuration for each table, as ``axolotl_sft.yaml``."""
        return {f"axolotl_{cls._METHODS[table.name]}.yaml": cls._yaml(table) for table in tables}

    @classmethod
    def _yaml(cls, table: Table) -> str:
        lines = [
            f"# In this folder: {cls.use(table, '')}",
            "# axolotl drops or cuts rows at sequence_len: set it to what your model shall read.",
            "datasets:",
            f"  - path: {table.name}.parquet",
            f"    type: {cls._TYPES[table.name]}",
        ]
        if table.name == "unpaired":
            lines.insert(2, "# For Llama 3: type: llama3.argilla_chat.")
        else:
            lines += ["    field_messages: messages"]
        if table.name == "train":
            lines += ["    roles_to_train: [assistant]"]
            if any("train" in message for message in table.rows[0]["messages"]):
                lines += ["    message_field_training: train"]
        if table.name != "unpaired":
            lines += ["chat_template: tokenizer_default"]
        if table.name != "train":
            lines += [f"rl: {cls._METHODS[table.name]}"]
        if table.name == "unpaired":
            # axolotl refuses KTO without it.
            lines += ["remove_unused_columns: false"]
        return "\n".join(lines) + "\n"

    @classmethod
    def use(cls, table: Table, title: str) -> str:
        """Return the command."""
        return f"axolotl train axolotl_{cls._METHODS[table.name]}.yaml --base-model MODEL"


class Sharegpt(Format):
    """Conversations of ``from`` and ``value``, with tool calls as turns of their own.

    Source: LLaMA-Factory, data/README.md, "Sharegpt format".
    """

    name = "sharegpt"
    about = "conversations of from and value, reasoning in <think> tags (JSONL)"
    _ROLES: ClassVar[dict[str, str]] = {
        "system": "system",
        "user": "human",
        "assistant": "gpt",
        "tool": "observation",
    }

    def train(self, sample: Sample) -> Row:
        """Return ``conversations``, and ``tools`` as JSON text where there are some."""
        return {"conversations": self._conversation(sample.turns)} | self._tools(sample)

    def pair(self, pair: PreferencePair) -> Row:
        """Return ``conversations``, which is the prompt, ``chosen`` and ``rejected``."""
        conversation = self._conversation(pair.prompt, is_prompt=True)
        sides = {
            name: self._answer([_only(side)])[0]
            for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected))
        }
        return {"conversations": conversation} | sides | self._tools(pair)

    def rated(self, answer: RatedAnswer) -> Row:
        """Return ``conversations``, which ends with the answer, and ``kto_tag``."""
        prompt = self._conversation(answer.prompt, is_prompt=True)
        conversation = prompt + self._answer([_only(answer.answer)])
        return {"conversations": conversation, "kto_tag": answer.desirable} | self._tools(answer)

    def _conversation(self, turns: Turns, *, is_prompt: bool = False) -> list[Row]:
        if not is_prompt:
            _check_loss(turns)
        return [self._turn(turn) for turn in turns]

    def _answer(self, turns: Turns) -> list[Row]:
        _check_loss(turns)
        return [self._turn(turn) for turn in turns]

    def _turn(self, turn: Turn) -> Row:
        if not turn.tool_calls:
            return {"from": self._ROLES[turn.role], "value": _with_thoughts(turn)}
        if turn.content.strip():
            raise NotCarriedError("a turn that says something and calls tools")
        calls = [
            {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
            for call in _calls(turn)
        ]
        text = json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)
        thoughts = _with_thoughts(replace(turn, content=""))
        return {"from": "function_call", "value": f"{thoughts}{text}"}

    def _tools(self, sample: AnySample) -> Row:
        tools = _tools(sample).get("tools")
        if not tools:
            return {}
        return {"tools": json.dumps([t.get("function", t) for t in tools], ensure_ascii=False)}


class LlamaFactory(Sharegpt):
    """The same rows, those that LLaMA-Factory's reader keeps, and ``dataset_info.json``.

    Source: LLaMA-Factory, data/README.md: the user or an observation speaks at odd places, the
    assistant at even ones, after at most one system turn.
    """

    name = "llamafactory"
    about = "the same for LLaMA-Factory, with dataset_info.json (JSONL)"

    def _conversation(self, turns: Turns, *, is_prompt: bool = False) -> list[Row]:
        said = turns[1:] if turns and turns[0].role == "system" else turns
        by_model = [turn.role == "assistant" for turn in said]
        takes_turns = by_model == [place % 2 == 1 for place in range(len(said))]
        takes_turns &= len(said) % 2 == is_prompt
        if not takes_turns or any(turn.role == "system" for turn in said):
            raise NotCarriedError("turns that do not alternate")
        return super()._conversation(turns, is_prompt=is_prompt)

    @classmethod
    def ready(cls, tables: Sequence[Table], title: str) -> dict[str, str]:
        """Return ``dataset_info.json``."""
        info = {_dataset_name(table, title): cls._described(table) for table in tables}
        return {"dataset_info.json": json.dumps(info, indent=2, ensure_ascii=False) + "\n"}

    @classmethod
    def _described(cls, table: Table) -> dict[str, Any]:
        columns = {name: name for name in table.rows[0] if name != "conversations"}
        described: dict[str, Any] = {
            "file_name": f"{table.name}{cls.suffix}",
            "formatting": "sharegpt",
            "columns": {"messages": "conversations"} | columns,
        }
        return described | ({"ranking": True} if table.name == "pairs" else {})

    @classmethod
    def use(cls, table: Table, title: str) -> str:
        """Return the command."""
        stage = {"train": "sft", "pairs": "dpo", "unpaired": "kto"}[table.name]
        return (
            f"llamafactory-cli train --stage {stage} --do_train --dataset_dir . --dataset "
            f"{_dataset_name(table, title)} --model_name_or_path MODEL --template TEMPLATE "
            "--output_dir MINE"
        )


def _dataset_name(table: Table, title: str) -> str:
    name = re.sub(r"\W+", "_", title)
    return name if table.name == "train" else f"{name}_{table.name}"


class Alpaca(Format):
    """An instruction with its answer; what was said before it in ``history``.

    Source: LLaMA-Factory, data/README.md, "Alpaca format".
    """

    name = "alpaca"
    about = "instruction, input and output, earlier exchanges in history (JSONL)"

    def train(self, sample: Sample) -> Row:
        """Return ``instruction``, ``input``, ``output``, and ``system`` and ``history`` if any."""
        _check_loss(sample.turns)
        question, before = self._question(sample, sample.turns[:-1])
        return question | {"output": _with_thoughts(sample.turns[-1])} | before

    def pair(self, pair: PreferencePair) -> Row:
        """Return the same with ``chosen`` and ``rejected``."""
        question, before = self._question(pair, pair.prompt)
        sides = {
            name: _with_thoughts(_only(side))
            for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected))
        }
        return question | sides | before

    def rated(self, answer: RatedAnswer) -> Row:
        """Return the same with ``output`` and ``kto_tag``."""
        question, before = self._question(answer, answer.prompt)
        output = {"output": _with_thoughts(_only(answer.answer)), "kto_tag": answer.desirable}
        return question | output | before

    def _question(self, sample: AnySample, prompt: Turns) -> tuple[Row, Row]:
        _check_plain(sample)
        system, said = prompt[:1], prompt[1:]
        if not system or system[0].role != "system":
            system, said = (), prompt
        roles = [turn.role for turn in said]
        if roles != ["user", *["assistant", "user"] * (len(said) // 2)]:
            raise NotCarriedError("turns that do not alternate")
        before: Row = {"system": system[0].content} if system else {}
        texts = [_with_thoughts(turn) for turn in said]
        if len(said) > 1:
            exchanges = list(pairwise(texts[:-1]))[::2]
            before["history"] = [list(exchange) for exchange in exchanges]
        return {"instruction": texts[-1], "input": ""}, before


FORMATS: dict[str, type[Format]] = {
    kind.name: kind for kind in (Messages, Sharegpt, Alpaca, Trl, Axolotl, LlamaFactory, Datasets)
}


def format_named(name: str) -> type[Format]:
    """Return a format by its name.

    Raises:
        UserError: there is none of that name, or it needs a library that is not installed.
    """
    if name not in FORMATS:
        raise UserError(f"format: got {name!r}; allowed are {', '.join(FORMATS)}")
    if FORMATS[name].suffix == ".parquet":
        require("datasets", f"the format {name}")
    return FORMATS[name]


def _calls(turn: Turn) -> list[Row]:
    calls = functions(turn.tool_calls) or []
    if not calls or not all(_is_call(call.get("function")) for call in calls):
        raise NotCarriedError("tool calls that are no objects with a name and arguments")
    return calls


def _is_call(function: object) -> bool:
    return (
        isinstance(function, dict)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), dict)
    )


def _tools(sample: AnySample) -> Row:
    if not sample.tools:
        return {}
    if (schemas := functions(sample.tools)) is None:
        raise NotCarriedError("tools that are no JSON schemas")
    return {"tools": schemas}


def _all_turns(sample: AnySample) -> Iterator[Turn]:
    return (turn for group in turn_groups(sample) for turn in group)


def _check_loss(turns: Turns) -> None:
    if any(turn.role == "assistant" and not turn.loss for turn in turns):
        raise NotCarriedError("turns of the assistant without loss")


def _check_plain(sample: AnySample) -> None:
    """Refuse what is not said in words."""
    if sample.tools or any(t.tool_calls or t.role == "tool" for t in _all_turns(sample)):
        raise NotCarriedError("tools or tool calls")


def _only(answer: Turns) -> Turn:
    _check_loss(answer)
    if len(answer) != 1:
        raise NotCarriedError("answers of several turns")
    return answer[0]


def _with_thoughts(turn: Turn) -> str:
    # As LLaMA-Factory looks for them; our own ingestion finds them, too.
    thoughts = f"<think>\n{turn.reasoning}\n</think>\n\n" if turn.reasoning else ""
    return f"{thoughts}{turn.content}"


def _said(turns: Turns) -> list[Row]:
    return [{"role": turn.role, "content": _with_thoughts(turn)} for turn in turns]


def _have_ids(sample: AnySample) -> bool:
    turns = _all_turns(sample)
    return any("id" in call for turn in turns for call in functions(turn.tool_calls) or ())


# What a format may have no place for although its rows are of use without.
_PARTS: dict[str, Callable[[AnySample], bool]] = {
    "media": lambda sample: bool(sample.media),
    "names": lambda sample: any(turn.name for turn in _all_turns(sample)),
    "ids of tool calls": lambda sample: _have_ids(sample),
    # The turn of a tool has no place for the call that it answers: the order of the turns tells.
    "tool_call_id of tools": lambda sample: (
        any(turn.role == "tool" for turn in _all_turns(sample)) and _have_ids(sample)
    ),
    "scores": lambda sample: (
        isinstance(sample, PreferencePair)
        and (sample.chosen_score, sample.rejected_score) != (None, None)
    ),
    # No loss falls on a prompt anyway.
    "turns without loss in prompts": lambda sample: (
        not isinstance(sample, Sample) and not all(turn.loss for turn in sample.prompt)
    ),
}
# What stands in a column of a sample that has nothing to put there.
_EMPTY: Row = {"tools": [], "system": "", "history": []}


def tables_of(
    kind: type[Format], samples: Sequence[tuple[str, AnySample]], stage: Stage
) -> list[Table]:
    """Return the tables of samples in a format; those without a row and a refusal are left out.

    Conversations make ``train``. Pairs make ``pairs``, and each of their two answers a row of
    ``unpaired``, as rated answers do.

    Args:
        kind: the format.
        samples: with their ids, in the order of the rows.
        stage: what they are.
    """
    if stage == "sft":
        found = [_table(kind, "train", samples)]
    else:
        pairs = [item for item in samples if isinstance(item[1], PreferencePair)]
        answers = [(name, answer) for name, sample in samples for answer in _answers(sample)]
        unpaired = _table(kind, "unpaired", answers)
        if num := sum(2 for _, pair in pairs if _PARTS["scores"](pair)):
            unpaired = replace(unpaired, dropped={**unpaired.dropped, "scores": num})
        found = [_table(kind, "pairs", pairs), unpaired]
    return [table for table in found if table.rows or table.refused]


def _answers(sample: AnySample) -> Iterable[RatedAnswer]:
    if not isinstance(sample, PreferencePair):
        assert isinstance(sample, RatedAnswer)
        return (sample,)
    extras = {"tools": sample.tools, "media": sample.media}
    return (
        RatedAnswer(sample.prompt, sample.chosen, desirable=True, **extras),
        RatedAnswer(sample.prompt, sample.rejected, desirable=False, **extras),
    )


def _table(kind: type[Format], name: str, samples: Sequence[tuple[str, AnySample]]) -> Table:
    spoken = (t for _, sample in samples for t in _all_turns(sample) if t.role == "assistant")
    writer = kind(weighted=not all(turn.loss for turn in spoken))
    methods: dict[str, Callable[[Any], Row]] = {
        "train": writer.train,
        "pairs": writer.pair,
        "unpaired": writer.rated,
    }
    write = methods[name]
    rows, kept, refused = [], [], []
    for sample_id, sample in samples:
        try:
            rows.append(write(sample))
            kept.append((sample_id, sample))
        except NotCarriedError as why:
            refused.append((sample_id, str(why)))
    lost = [part for part in _PARTS if part not in kind.kept(name)]
    dropped = Counter(part for _, sample in kept for part in lost if _PARTS[part](sample))
    rows, columns = _uniform(rows)
    ids = [name for name, _ in kept]
    return Table(name, rows, ids, refused, dict(dropped) | columns, kind.is_plain(name))


def _uniform(rows: list[Row]) -> tuple[list[Row], dict[str, int]]:
    """Return rows of the same columns, and how many have what was left out for that."""
    counts = Counter(name for row in rows for name in row)
    lost = {n: num for n, num in counts.items() if num < len(rows) and n not in _EMPTY}
    # JSON text is empty, too, where a format writes tools as such.
    texts = {n for row in rows for n in row.keys() & _EMPTY.keys() if isinstance(row[n], str)}
    empty = _EMPTY | dict.fromkeys(texts, "")
    names = [name for name in counts if name not in lost]
    return [{name: row.get(name, empty.get(name)) for name in names} for row in rows], lost


def write_rows(path: Path, table: Table) -> None:
    """Write rows as JSON lines, or as a Parquet table that says what its columns are."""
    if path.suffix == ".jsonl":
        lines = (json.dumps(row, ensure_ascii=False) for row in table.rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
        return
    import pyarrow.parquet
    from datasets import Dataset, Features, Json, List, Value

    # As JSON a message has no fields but its own; a table would give it those of all others.
    text, features, columns = Value("string"), {}, {}
    for name, feature in table.features().items():
        values = [row[name] for row in table.rows]
        match feature:
            case {"list": "json"}:
                features[name] = List(Json())
                values = [[_as_json(item) for item in value] for value in values]
            case {"dtype": "json"}:
                features[name] = Json()
                values = [_as_json(value) for value in values]
            case {"dtype": dtype}:
                features[name] = Value(dtype)
            case {"struct": fields}:
                features[name] = {field["name"]: text for field in fields}
            case {"list": fields}:
                features[name] = List({field["name"]: text for field in fields})
        columns[name] = values
    dataset = Dataset.from_dict(columns, features=Features(features))
    pyarrow.parquet.write_table(dataset.data.table, path, compression="zstd")


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def card(
    kind: type[Format], tables: Sequence[Table], title: str, manifest: Mapping[str, Any]
) -> str:
    """Return the README.md of an export; its head tells ``datasets`` and the hub what to load.

    Without the types in the head ``datasets`` guesses them from the first 10 MB of a JSONL file,
    and fails where a later row has something new.
    """
    suffix = kind.suffix
    head = {
        "configs": [
            {"config_name": t.name, "data_files": f"{t.name}{suffix}", "default": t is tables[0]}
            for t in tables
        ],
        "dataset_info": [
            {
                "config_name": table.name,
                "features": [{"name": n} | feature for n, feature in table.features().items()],
            }
            for table in tables
        ],
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()]
    budget = manifest["budget"]
    body = [
        f"# {title}",
        f"Selected by zip-pipeline: {manifest['num_picked']:,} of {manifest['num_samples']:,} "
        f"samples by the strategy {inert(manifest['strategy'])}, within {budget['value']:,} "
        f"{budget['unit'].replace('_', ' ')}. Written as {kind.name}: {kind.about}.",
    ]
    if unread := manifest.get("unread_fields"):
        body.append(f"Not read from the records of the pool: {inert(words_of_unread(unread))}.")
    for table in tables:
        columns = inert(", ".join(table.rows[0]))
        body.append(
            f"- `{table.name}{suffix}`: {len(table.rows):,} rows of {columns}\n\n"
            f"  ```\n  {kind.use(table, title)}\n  ```"
        )
        body += [f"  - {inert(words)}" for words in words_of_losses(table)]
    return "\n".join(["---", *lines, "---", ""]) + "\n" + "\n\n".join(body) + "\n"


_NUM_FIELDS = 8


def words_of_unread(fields: Mapping[str, int]) -> str:
    """Return the fields that no format reads, with the number of rows that have each."""
    shown = [f"{name} ({counted(num, 'row')})" for name, num in list(fields.items())[:_NUM_FIELDS]]
    more = len(fields) - len(shown)
    return f"{counted(len(fields), 'field')}: {', '.join(shown)}{f' and {more} more' * bool(more)}"


def words_of_losses(table: Table) -> list[str]:
    """Return in words what a format could not carry; empty where it carries all."""
    refused = [f"{num:,} with {why}" for why, num in table.reasons().items()]
    dropped = [f"{what} of {counted(num, 'row')}" for what, num in table.dropped.items()]
    words = [f"refused: {', '.join(refused)}"] if refused else []
    return words + ([f"written without: {', '.join(dropped)}"] if dropped else [])
