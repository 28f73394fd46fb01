"""Exports on disk: whole, loaded row for row, read back as they were, masked, and pushed."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zip_pipeline
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.ingest import ingest, ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.report.exports import FORMATS
from zip_pipeline.samples import (
    AnySample,
    RatedAnswer,
    Sample,
    Stage,
    Turn,
    frame_of,
    sample_columns,
    sample_id,
)
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.training.presets import load_preset, templated_tokenizer
from zip_pipeline.workflow.exports import Export, export_subset, export_version
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.report.test_exports import (
    ASK,
    CALLED,
    CALLING,
    LEARNT,
    LONG,
    PAIR,
    PLAIN,
    RATED,
    SCHEMA,
    THOUGHT,
    UNSCORED,
)
from zip_pipeline_tests.workflow.test_marks import MAIL

MANIFEST = {
    "stage": "sft",
    "strategy": "zip",
    "num_picked": 3,
    "num_samples": 9,
    "budget": {"unit": "tokens", "value": 1000},
}
SFT = (PLAIN, THOUGHT, CALLING, LEARNT)
PREFERENCES = (UNSCORED, RATED)


def exported(folder: Path, name: str, samples: Sequence[AnySample], **options: bool) -> Export:
    """Write samples in a format."""
    stage: Stage = "sft" if isinstance(samples[0], Sample) else "preference"
    rows = [{"sample_id": sample_id(sample)} | sample_columns(sample) for sample in samples]
    title = f"{stage} version 3"
    return export_subset(frame_of(stage, rows), stage, name, folder, title, MANIFEST, **options)


def loaded(folder: Path, table: str, cache: Path) -> list[dict[str, Any]]:
    """Return the rows that ``datasets`` finds in a folder by the card."""
    import datasets

    found = datasets.load_dataset(str(folder), table, cache_dir=str(cache))
    return list(found["train"])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("samples", [SFT, PREFERENCES], ids=["sft", "preference"])
def test_exports_load_row_for_row(tmp_path: Path, name: str, samples: Sequence[AnySample]) -> None:
    """No field is added, null or lost, whatever the rows beside it have."""
    written = exported(tmp_path / "out", name, samples)
    assert sum(written.num_rows.values()) >= 3
    for table in written.tables:
        assert loaded(tmp_path / "out", table.name, tmp_path / "cache") == table.rows


def test_text_takes_the_place_of_a_message(tmp_path: Path) -> None:
    """A trainer that writes over a column of messages finds the text there, not its letters."""
    import datasets

    exported(tmp_path / "out", "axolotl", PREFERENCES)
    for table, column in (("pairs", "chosen"), ("unpaired", "completion")):
        file = str(tmp_path / "out" / f"{table}.parquet")
        cache = str(tmp_path / "cache")
        rows = datasets.load_dataset("parquet", data_files=file, cache_dir=cache, split="train")
        assert rows.map(lambda row, column=column: {column: "Yes."})[0][column] == "Yes."


def test_a_late_kind_of_row_loads_as_well(tmp_path: Path) -> None:
    """Types told by the card are not guessed from the first 10 MB, where no call may stand."""
    long = replace(PLAIN, turns=(replace(PLAIN.turns[0], content="x" * 6_000_000), PLAIN.turns[1]))
    longer = replace(long, turns=(long.turns[0], replace(PLAIN.turns[1], content="Other")))
    written = exported(tmp_path / "out", "messages", [PLAIN, long, longer, CALLING, THOUGHT])
    assert (tmp_path / "out" / "train.jsonl").stat().st_size > 12_000_000
    assert loaded(tmp_path / "out", "train", tmp_path / "cache") == written.tables[0].rows


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("messages", (*SFT, LONG)),
        ("datasets", (*SFT, LONG)),
        ("trl", SFT),
        ("axolotl", SFT),
        ("alpaca", (PLAIN, THOUGHT, LEARNT)),
        ("sharegpt", (PLAIN, THOUGHT, LEARNT)),
        ("llamafactory", (PLAIN, THOUGHT, LEARNT)),
    ],
)
def test_conversations_are_read_back(
    tmp_path: Path, name: str, samples: Sequence[AnySample]
) -> None:
    """Our own ingestion finds the same samples in what was written."""
    written = exported(tmp_path / "out", name, samples)
    found = ingest(tmp_path / "out" / written.files[0], "sft", batch="b")
    assert found.quarantine.height == 0
    assert found.samples["sample_id"].to_list() == [sample_id(sample) for sample in samples]


@pytest.mark.parametrize("name", ["sharegpt", "llamafactory"])
def test_calls_of_sharegpt_are_read_back(tmp_path: Path, name: str) -> None:
    """A call without a frame is a turn of its own, with what was thought before it."""
    said = [
        {"from": "human", "value": "Weather?"},
        {
            "from": "function_call",
            "value": '<think>Look.</think>{"name": "f", "arguments": {"n": 1}}',
        },
        {"from": "observation", "value": "Rain"},
        {"from": "gpt", "value": "It rains."},
    ]
    record = {"conversations": said, "tools": '[{"name": "f"}]'}
    selection = zip_pipeline.select([record], budget_samples=1, strategy="random")
    written = selection.export(name, tmp_path / "out")
    found = ingest(tmp_path / "out" / written.files[0], "sft", batch="b").samples
    assert found["sample_id"].to_list() == selection.subset["sample_id"].to_list()


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "axolotl"])
def test_preferences_are_read_back(tmp_path: Path, name: str) -> None:
    """Pairs as pairs, and each answer as a rated one."""
    suffix = FORMATS[name].suffix
    exported(tmp_path / "out", name, PREFERENCES)
    pairs = ingest(tmp_path / "out" / f"pairs{suffix}", "preference", batch="b")
    assert pairs.samples["sample_id"].to_list() == [sample_id(UNSCORED)]
    answers = ingest(tmp_path / "out" / f"unpaired{suffix}", "preference", batch="b")
    assert answers.samples["sample_id"].to_list() == [
        sample_id(RatedAnswer(ASK, UNSCORED.chosen, desirable=True)),
        sample_id(RatedAnswer(ASK, UNSCORED.rejected, desirable=False)),
        sample_id(RATED),
    ]


def test_pairs_of_axolotl_are_read_back(tmp_path: Path) -> None:
    """Its unpaired answers are one list with the question, which is no format of ours."""
    exported(tmp_path / "out", "axolotl", [PAIR])
    pairs = ingest(tmp_path / "out" / "pairs.parquet", "preference", batch="b")
    assert pairs.samples["sample_id"].to_list() == [sample_id(PAIR)]


def root_of(folder: Path, rows: Sequence[dict[str, Any]], **config: Any) -> DataRoot:
    """Return a data root with one version of all rows."""
    root = DataRoot(folder)
    root["sft"].raw.mkdir(parents=True)
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (root["sft"].raw / "a.jsonl").write_text(lines)
    ingest_drop(root["sft"], "a.jsonl")
    write_state(root["sft"], "a.jsonl")
    options = {"strategy": "random", "budget_samples": 9} | config
    select_version(root["sft"], SelectionConfig(**options), print)
    return root


MASK = {"personal_data": {"policy": "mask"}}
CALL = {"type": "function", "function": {"name": "mail", "arguments": {"to": MAIL}}}
PERSONAL = [
    {
        "messages": [
            {"role": "user", "content": f"Ask {MAIL}"},
            {"role": "assistant", "content": "No"},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "Write.", "name": MAIL},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ],
        "tools": [{"type": "function", "function": {"name": "mail", "description": f"As {MAIL}"}}],
    },
]


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_version_masks_leaves_in_no_export(tmp_path: Path, name: str) -> None:
    """Not in turns, nor where it stands again: in names and schemas, which nobody searches."""
    root = root_of(tmp_path / "data", PERSONAL, signals=MASK)
    written = export_version(root, "sft", 1, name, tmp_path / "out")
    assert [text for t in written.tables for text in map(str, t.rows) if MAIL in text] == []
    assert "[MAIL]" in str(written.tables[0].rows)
    for file in written.files:
        assert MAIL.encode() not in (tmp_path / "out" / file).read_bytes()


def test_an_export_of_a_selection_is_masked_as_its_records_are(tmp_path: Path) -> None:
    """One policy for both ways out."""
    selection = zip_pipeline.select(PERSONAL, budget_samples=2, strategy="random", signals=MASK)
    selection.export("messages", tmp_path / "out")
    text = (tmp_path / "out" / "train.jsonl").read_text()
    assert MAIL not in text
    assert MAIL not in json.dumps(selection.records())
    assert text.count("[MAIL]") == 4


def test_the_record_tells_what_became_of_each_sample(tmp_path: Path) -> None:
    """Rows, refusals by sample, and what is missing in rows; nothing changes when written again."""
    written = exported(tmp_path / "out", "trl", [PLAIN, LONG, THOUGHT])
    assert written.files == ("train.parquet", "trl_sft.yaml", "README.md", "export.json")
    assert written.num_rows == {"train": 2}
    assert written.refused == {"train": {"turns of the assistant without loss": 1}}
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["tables"]["train"] == {
        "num_rows": 2,
        "refused": {sample_id(LONG): "turns of the assistant without loss"},
        "dropped": {},
        "sample_ids": [sample_id(PLAIN), sample_id(THOUGHT)],
    }
    assert "refused: 1 with turns of the assistant" in (tmp_path / "out" / "README.md").read_text()
    before = [(tmp_path / "out" / name).read_bytes() for name in written.files]
    again = exported(tmp_path / "again", "trl", [PLAIN, LONG, THOUGHT])
    assert [(tmp_path / "again" / name).read_bytes() for name in again.files] == before


def test_an_export_replaces_only_an_export_and_when_told(tmp_path: Path) -> None:
    """What a person put there stays; what the earlier export wrote goes."""
    out = tmp_path / "out"
    exported(out, "axolotl", [PAIR, RATED])
    (out / "notes.txt").write_text("mine")
    record = json.loads((out / "export.json").read_text())
    record["files"] += ["notes.txt", "../outside.txt"]
    (out / "export.json").write_text(json.dumps(record))
    (tmp_path / "outside.txt").write_text("mine")
    with pytest.raises(UserError, match=r"out: is not empty; name another folder, or give --force"):
        exported(out, "messages", [RATED])
    assert (out / "pairs.parquet").exists()
    exported(out, "messages", [RATED], force=True)
    left = sorted(path.name for path in out.iterdir())
    assert left == ["README.md", "export.json", "notes.txt", "unpaired.jsonl"]
    assert (tmp_path / "outside.txt").exists()
    with pytest.raises(UserError, match=r"notes.txt: is a file; name a folder"):
        exported(out / "notes.txt", "messages", [RATED])


def test_a_format_that_takes_no_sample_says_why(tmp_path: Path) -> None:
    """Nothing is written then."""
    with pytest.raises(UserError, match="alpaca has no place for any sample: 1 with tools or tool"):
        exported(tmp_path / "out", "alpaca", [CALLING])
    assert not (tmp_path / "out").exists()


class _Hub:
    """Stands for the hub: keeps what it is asked, and files as a repository does."""

    asked: list[tuple[str, dict[str, Any]]]
    refusal: Exception | None = None

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.asked.append(("create_repo", {"repo_id": repo_id} | options))

    def upload_folder(self, **options: Any) -> Any:
        if self.refusal:
            raise self.refusal
        self.asked.append(("upload_folder", options))
        address = f"https://hub.test/{options['repo_id']}/commit/1"
        return type("Commit", (), {"commit_url": address})


# Fails where arguments are no object.
TEMPLATE = """{% for message in messages %}{{ message.role }}: {% if message.role == "assistant" %}\
{% generation %}{{ message.reasoning_content }}{{ message.content }}\
{% for call in message.tool_calls or [] %}{{ call.function.name }}\
{% for name, value in call.function.arguments.items() %} {{ name }}={{ value }}{% endfor %}\
{% endfor %}{{ eos_token }}{% endgeneration %}{% else %}{{ message.content }}{{ eos_token }}\
{% endif %}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "samples"),
    [("sft", (*SFT, CALLING)), ("dpo", (PAIR, UNSCORED)), ("kto", (PAIR, UNSCORED))],
)
def test_trl_takes_a_step_on_an_export(
    tmp_path: Path,
    method: str,
    samples: Sequence[AnySample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TRL's own parser and loader take the configuration, and its trainer all rows."""
    import trl

    exported(tmp_path, "trl", samples)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    kinds = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig, "kto": trl.KTOConfig}
    parser = trl.TrlParser((trl.ScriptArguments, kinds[method], trl.DatasetMixtureConfig))
    options = {"output_dir": "out", "max_steps": 1, "per_device_train_batch_size": 2}
    options |= {"report_to": "none", "use_cpu": True, "bf16": False, "save_strategy": "no"}
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    _, settings, mixture = parser.parse_args_and_config(["--config", f"trl_{method}.yaml", *given])
    rows = trl.get_dataset(mixture)["train"]
    trainers = {"sft": trl.SFTTrainer, "dpo": trl.DPOTrainer, "kto": trl.KTOTrainer}
    preset = load_preset("tiny")
    tokenizer = templated_tokenizer(preset.source, preset.revision, preset.template)
    tokenizer.chat_template = TEMPLATE
    trainer = trainers[method](
        model=str(preset.source), args=settings, train_dataset=rows, processing_class=tokenizer
    )
    assert len(trainer.train_dataset) == len(rows) == {"sft": 5, "dpo": 2, "kto": 4}[method]
    assert trainer.train().training_loss > 0
    if method == "sft":
        read = [tokenizer.decode(ids) for ids in trainer.train_dataset["input_ids"]]
        assert "weather city=Kiel" in read[2]
        assert ["Two twos." in text for text in read] == [False, True, False, False, False]


# What they depend on conflicts with what we do: their readers run on our libraries.
_READERS = ("axolotl==0.19.0", "colorama==0.4.6", "addict==2.4.0", "llamafactory==0.9.5")


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the code of other trainers."""
    folder = tmp_path_factory.mktemp("readers")
    how = ["--no-deps", "--no-compile", "--retries", "1", "--timeout", "10", "--target"]
    command = [sys.executable, "-m", "pip", "install", *how, str(folder), *_READERS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "(from versions: none)" in done.stderr:
        pytest.skip("pip reaches no registry that has axolotl and llamafactory")
    assert done.returncode == 0, done.stderr
    return folder


def read_by(trainer: str, readers: Path, folder: Path, *names: str) -> list[list[dict[str, Any]]]:
    """Return the rows that the code of a trainer finds by each name, in a process of its own."""
    preset = load_preset("tiny")
    tokenizer = templated_tokenizer(preset.source, preset.revision, preset.template)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "model")
    program = Path(__file__).with_name("export_readers.py")
    said = {"HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, program, trainer, readers, *names],
        cwd=folder,
        env=os.environ | said | {"AXOLOTL_DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return found


# Thought of, then called twice at once; in a row of its own, after rows without a call.
TWO_CALLS = replace(
    CALLING,
    turns=(
        CALLING.turns[0],
        Turn("assistant", "", reasoning="Ask.", tool_calls=json.dumps([CALLED, CALLED])),
        *CALLING.turns[2:],
    ),
)


@pytest.mark.slow
def test_axolotl_reads_conversations(tmp_path: Path, readers: Path) -> None:
    """Calls, tools and thoughts reach its template, and the loss falls where we say."""
    exported(tmp_path, "axolotl", [PLAIN, THOUGHT, TWO_CALLS, LONG])
    call, end = "weather city=Kiel", "<|end|>"
    (rows,) = read_by("axolotl", readers, tmp_path, "axolotl_sft.yaml")
    assert rows == [
        {
            "tools": [],
            "text": "user: Hi<|end|>assistant: Hello<|end|>",
            "learnt": " Hello<|end|>",
        },
        {
            "tools": [],
            "text": "user: 2+2?<|end|>assistant: Two twos.4<|end|>",
            "learnt": " Two twos.4<|end|>",
        },
        {
            "tools": [SCHEMA],
            "text": f"user: Weather?<|end|>assistant: Ask.{call * 2}{end}"
            f"tool: Rain{end}assistant: It rains.{end}",
            "learnt": f" Ask.{call * 2}{end} It rains.{end}",
        },
        {
            "tools": [],
            "text": f"system: Be brief.{end}user: A{end}assistant: B{end}user: C{end}"
            "assistant: D<|end|>",
            "learnt": " D<|end|>",
        },
    ]


@pytest.mark.slow
def test_axolotl_reads_preferences(tmp_path: Path, readers: Path) -> None:
    """Its DPO and its KTO find each pair and each answer."""
    exported(tmp_path, "axolotl", PREFERENCES)
    files = ("axolotl_dpo.yaml", "axolotl_kto.yaml")
    pairs, answers = read_by("axolotl", readers, tmp_path, *files)
    prompt = "user: Why?<|end|>assistant: "
    assert pairs == [{"prompt": prompt, "chosen": "Yes.<|end|>", "rejected": "?<|end|>"}]
    asked = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert answers == [
        {"prompt": asked, "completion": f"{text}<|im_end|>", "label": label}
        for text, label in (("Yes.", True), ("?", False), ("Hm.", False))
    ]


@pytest.mark.slow
def test_llamafactory_reads_conversations(tmp_path: Path, readers: Path) -> None:
    """It keeps every row, and its formatters take calls, thoughts and tools."""
    exported(tmp_path, "llamafactory", [PLAIN, THOUGHT, LEARNT, TWO_CALLS])
    ((*rows, called),) = read_by("llamafactory", readers, tmp_path, "sft_version_3")
    thought = "<think>\nTwo twos.\n</think>\n\n4"
    assert rows == [
        {"system": system, "said": [list(turn) for turn in said], "tools": ""}
        for system, said in (
            ("", [("user", "Hi"), ("assistant", "Hello")]),
            ("", [("user", "2+2?"), ("assistant", thought)]),
            ("Be brief.", [(turn.role, turn.content) for turn in LEARNT.turns[1:]]),
        )
    ]
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Kiel"}}\n</tool_call>'
    assert called["said"] == [
        ["user", "Weather?"],
        ["function", f"<think>\nAsk.\n</think>\n\n{call}\n{call}"],
        ["observation", "Rain"],
        ["assistant", "It rains."],
    ]
    assert json.dumps(SCHEMA["function"]) in called["tools"]


@pytest.mark.slow
def test_llamafactory_reads_preferences(tmp_path: Path, readers: Path) -> None:
    """An answer of KTO stands first where it is good and last where it is not."""
    exported(tmp_path, "llamafactory", PREFERENCES)
    names = [f"preference_version_3_{table}" for table in ("pairs", "unpaired")]
    found = read_by("llamafactory", readers, tmp_path, *names)
    pairs, answers = ([row["said"] for row in rows] for rows in found)
    asked, yes, no = (["user", "Why?"], ["assistant", "Yes."], ["assistant", "?"])
    none, hm = ["assistant", ""], ["assistant", "Hm."]
    assert pairs == [[asked, yes, no]]
    assert answers == [[asked, yes, none], [asked, none, no], [asked, none, hm]]


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> type[_Hub]:
    """Return the class whose instances stand for the hub."""
    monkeypatch.setattr(_Hub, "asked", [], raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi", _Hub)
    return _Hub


def test_a_push_is_one_commit_to_a_private_repository(tmp_path: Path, fake_hub: type[_Hub]) -> None:
    """Files of earlier exports that are none of this one go in the same commit."""
    written = exported(tmp_path / "out", "llamafactory", [PLAIN])
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert written.push("org/chats") == "https://hub.test/org/chats/commit/1"
    (made, options), (uploaded, commit) = fake_hub.asked
    assert (made, options) == (
        "create_repo",
        {"repo_id": "org/chats", "repo_type": "dataset", "private": True, "exist_ok": True},
    )
    assert uploaded == "upload_folder"
    assert commit["commit_message"] == "sft version 3"
    assert commit["allow_patterns"] == [
        "train.jsonl",
        "dataset_info.json",
        "README.md",
        "export.json",
    ]
    assert {"train.parquet", "pairs.jsonl", "trl_sft.yaml"} < set(commit["delete_patterns"])
    assert not {"notes.txt", "*"} & set(commit["delete_patterns"])


def test_a_dry_run_asks_nobody(tmp_path: Path, fake_hub: type[_Hub]) -> None:
    """It tells where the export would go."""
    written = exported(tmp_path / "out", "messages", [PLAIN])
    address = written.push("org/chats", dry_run=True)
    assert address == "https://huggingface.co/datasets/org/chats"
    assert fake_hub.asked == []
    with pytest.raises(UserError, match="got 'chats'; write it as ORG/NAME"):
        written.push("chats", dry_run=True)


def test_a_refusal_of_the_hub_says_where_the_export_is(
    tmp_path: Path, fake_hub: type[_Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how to log in."""
    from huggingface_hub.errors import LocalTokenNotFoundError

    refusal = LocalTokenNotFoundError("no token for https://a:b@hub.test/x?X-Amz-Signature=c")
    monkeypatch.setattr(fake_hub, "refusal", refusal)
    written = exported(tmp_path / "out", "messages", [PLAIN])
    words = r"org/chats cannot be written \(no token for https://hub\.test/x\?…\); log in with"
    with pytest.raises(UserError, match=words) as caught:
        written.push("org/chats")
    # Logs would show the other one, with what is secret in it.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
