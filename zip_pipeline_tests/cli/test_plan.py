"""``zip-pipeline train-plan``."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.samples import (
    AnySample,
    PreferencePair,
    RatedAnswer,
    Sample,
    Stage,
    Turn,
    frame_of,
    sample_columns,
    sample_id,
)
from zip_pipeline.training.presets import FOLDER
from zip_pipeline_tests.cli.commands import call, call_badly, call_well
from zip_pipeline_tests.cli.pools import write_jsonl
from zip_pipeline_tests.report.data_roots import ledger_of, manifest_of

SFT_ROWS = [
    Sample((Turn("user", f"{n} plus 1"), Turn("assistant", f"It is {n + 1}."))) for n in range(40)
]
PAIRS = [
    PreferencePair(
        (Turn("user", f"{n} plus 1"),),
        (Turn("assistant", f"It is {n + 1}."),),
        (Turn("assistant", "No idea."),),
    )
    for n in range(40)
]


def write_version(folder: Path, stage: Stage, samples: Sequence[AnySample]) -> None:
    """Write the next version of a stage."""
    rows = [{"sample_id": sample_id(s), "source": "a", **sample_columns(s)} for s in samples]
    subset = frame_of(stage, rows)
    DataRoot(folder)[stage].versions.write(subset, ledger_of([{}]), manifest_of(stage=stage))


def write_root(folder: Path) -> Path:
    """Write a data root with version 1 of both stages; return the sft version's folder."""
    write_version(folder, "sft", SFT_ROWS)
    write_version(folder, "preference", PAIRS)
    return DataRoot(folder)["sft"].versions.path(1)


def test_a_plan_names_all_that_a_run_would_take(tmp_path: Path):
    """Rows, cuts, batch, steps, tokens, memory and time are said in words."""
    version = write_root(tmp_path)
    text = " ".join(call_well("train-plan", "tiny", version).split())
    for words in (
        "sft: tiny on",
        "model 614,880 parameters",
        "rows 40 of 40 samples",
        "truncated 0 rows, at 256 tokens",
        "dropped 0 rows",
        "packs 3 of several rows each",
        "batch 16 = 1 device x",
        "not filled: an epoch has only 3 packs",
        "steps 1 = 1 epoch x 1",
        "padding 0 tokens on top",
        "GiB per device, estimated",
        "fits L4, RTX 4090, A100 40 GB, L40S, A100 80 GB, H100, H200",
        "estimated for GPUs that each reach 40% of 989 TFLOP/s; a CPU is far slower",
    ):
        assert words in text, text


def test_a_version_is_named_by_number_folder_or_file(tmp_path: Path):
    """The three ways to name a version give the same plan."""
    version = write_root(tmp_path)
    plans = [
        json.loads(call_well("train-plan", "tiny", *subset, "--json"))
        for subset in ([version], [version / "subset.parquet"], ["1", "--data-root", tmp_path])
    ]
    assert plans[0] == plans[1] == plans[2]
    assert plans[0]["rows"]["num_samples"] == 40


@pytest.mark.parametrize("name", ["picked.jsonl", "picked.parquet"])
def test_a_plan_takes_what_select_wrote(tmp_path: Path, name: str):
    """Records as they came are read again; a table is taken as it is."""
    rows = [{"instruction": f"{n} plus 1", "output": f"It is {n + 1}."} for n in range(40)]
    given, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / name
    call_well("select", given, "-o", out, "--budget-samples", "40", "--strategy", "random")
    plan = json.loads(call_well("train-plan", "tiny", out, "--json"))
    whole = json.loads(call_well("train-plan", "tiny", write_root(tmp_path / "root"), "--json"))
    assert plan == whole


def test_a_plan_of_preference_rows_counts_two_per_pair(tmp_path: Path):
    """40 pairs make 80 rows; two devices share the batch of 32."""
    write_root(tmp_path)
    options = ["--stage", "preference", "--num-devices", "2", "--data-root", tmp_path]
    plan = json.loads(call_well("train-plan", "tiny", "1", *options, "--json"))
    assert (plan["rows"]["num_rows"], plan["num_steps"]) == (80, 3)
    assert plan["batch"] == {
        "num_devices": 2,
        "per_device": 16,
        "accumulation": 1,
        "effective": 32,
    }
    text = " ".join(call_well("train-plan", "tiny", "1", *options).split())
    assert "rows 80 rows of 40 pairs" in text
    assert "not filled" not in text


def test_a_plan_of_rated_answers_names_their_weights(tmp_path: Path):
    """Pairs, rated answers and what is not shown are told; pairs alone weigh the same."""
    write_version(tmp_path, "preference", PAIRS)
    rated = [
        RatedAnswer((Turn("user", f"{n}"),), (Turn("assistant", "No.", name="bob"),), False)
        for n in range(20)
    ]
    write_version(tmp_path, "preference", [*PAIRS, *rated])
    options = ["--stage", "preference", "--data-root", tmp_path]
    text = " ".join(call_well("train-plan", "tiny", "1", *options).split())
    assert "answers 40 desirable answers of weight 1, 40 undesirable ones of weight 1" in text
    assert "not shown" not in text
    text = " ".join(call_well("train-plan", "tiny", "2", *options).split())
    assert "rows 100 rows of 60 samples" in text
    assert "answers 40 desirable answers of weight 1.5, 60 undesirable ones of weight 1" in text
    assert "not shown names of 20 samples: the template has no words for it" in text


def test_a_plan_says_that_too_few_rows_fill_no_batch(tmp_path: Path):
    """Rows that are not packed are called rows, and as many as a batch takes fill it."""
    options = ["--stage", "preference", "--data-root", tmp_path]
    for number, num_pairs in ((1, 15), (2, 16)):
        write_version(tmp_path, "preference", PAIRS[:num_pairs])
        text = " ".join(call_well("train-plan", "tiny", str(number), *options).split())
        assert ("not filled: an epoch has only 30 rows steps" in text) is (num_pairs == 15)


def test_hours_follow_from_what_the_devices_deliver(tmp_path: Path):
    """Half the utilisation, or half the peak, doubles the hours; they are shown as hours."""
    version = write_root(tmp_path)

    def hours(*options: str) -> float:
        return json.loads(call_well("train-plan", "tiny", version, "--json", *options))["hours"]

    assert hours("--utilisation", "0.2") == pytest.approx(2 * hours())
    assert hours("--peak-tflops", "494.5") == pytest.approx(2 * hours())
    slow = call_well("train-plan", "tiny", version, "--peak-tflops", "0.000001")
    assert " hours, estimated for GPUs that each reach 40% of 0 TFLOP/s" in slow


def test_a_model_that_is_not_at_hand_is_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The plan of a large model asks no network, and says that its tokens are estimated."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    version = write_root(tmp_path)
    shipped = (FOLDER / "mistral-7b.toml").read_text()
    preset = tmp_path / "mine.toml"
    preset.write_text(shipped.replace("mistralai/Mistral-7B-v0.1", "zip-pipeline/not-at-hand"))
    text = call_well("train-plan", preset, version, "--num-devices", "8")
    assert "7,241,732,096 parameters" in text
    assert "128 = 8 devices x 4 at once x 4 accumulated" in text
    assert "estimated, for the model's tokenizer is not at hand" in text
    words = " ".join(text.split())
    assert "fits H200; not within 90% of 80 GiB" in words
    assert "[training] overrides = { lora = { rank = 16 } }: 43.53 GiB per device" in words
    assert "[training] overrides = { sharding = true }: 18.24 GiB per device" in words
    alone = " ".join(call_well("train-plan", preset, version, "--device-memory", "1").split())
    assert "not within 90% of 1 GiB, nor with LoRA or sharding over 64 devices" in alone


def test_train_plan_refuses_in_one_line(tmp_path: Path):
    """Unknown presets, versions, stages and batches that cannot be split are told."""
    version = write_root(tmp_path)
    assert "allowed are llama-3-8b, mistral-7b, smollm2" in call_badly("train-plan", "big", version)
    assert "no version 7; there are: 1" in call_badly(
        "train-plan", "tiny", "7", "--data-root", tmp_path
    )
    (tmp_path / "empty").mkdir()
    for missing in ("three", tmp_path / "no.parquet", tmp_path / "empty"):
        assert "does not exist. Give the number of a version, the folder of a version, a " in (
            call_badly("train-plan", "tiny", missing)
        )
    text = tmp_path / "rows.json"
    text.write_text("[]")
    assert f"SUBSET: {text} holds no sample" in call_badly("train-plan", "tiny", text)
    text.write_text('[{"prompt": "a"}]')
    told = call_badly("train-plan", "tiny", text)
    assert told.startswith(f"SUBSET: {text}, row 1 is no sample of sft: unknown_format (")
    assert told.endswith("let it write a table with -o NAME.parquet")
    table = tmp_path / "rows.parquet"
    table.write_text("[]")
    assert f"{table}: cannot be read as Parquet" in call_badly("train-plan", "tiny", table)
    assert "column prompt is missing" in call_badly(
        "train-plan", "tiny", version, "--stage", "preference"
    )
    assert "cannot be split" in call_badly("train-plan", "tiny", version, "--num-devices", "3")
    assert "utilisation is 2.0" in call_badly("train-plan", "tiny", version, "--utilisation", "2")
    assert call("train-plan", "tiny", version, "--num-devices", "0").exit_code == 2
