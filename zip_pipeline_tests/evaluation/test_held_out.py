"""Held-out loss of a model."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
import torch

from zip_pipeline.chat_models import load_model, load_tokenizer
from zip_pipeline.chat_tokens import encode
from zip_pipeline.evaluation.evaluators import main
from zip_pipeline.evaluation.held_out import evaluate, held_out_hash, held_out_loss
from zip_pipeline.process import SilentReporter
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


def _pool(samples: Sequence[AnySample], sources: list[str]) -> pl.DataFrame:
    stage: Stage = "sft" if isinstance(samples[0], Sample) else "preference"
    rows = [
        {"sample_id": sample_id(s), "source": source, **sample_columns(s)}
        for s, source in zip(samples, sources, strict=True)
    ]
    return frame_of(stage, rows)


def _talk(user: str, assistant: str) -> Sample:
    return Sample((Turn("user", user), Turn("assistant", assistant)))


def _talks(count: int) -> pl.DataFrame:
    samples = [_talk("hello " * (n % 7), f"answer {n}, " + "x" * n) for n in range(count)]
    return _pool(samples, ["b" if n % 3 == 2 else "a" for n in range(count)])


def _slow_loss(folder: Path, turns: list[Turn]) -> tuple[float, int]:
    """Return loss sum and number of targets of one conversation, in a batch of one."""
    tokenizer, network = load_tokenizer(str(folder), None), load_model(str(folder), None)
    (encoded,) = encode(tokenizer, [turns])
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([encoded.input_ids])).logits[0].log_softmax(-1)
    losses = [
        -logits[place - 1, token].item()
        for place, token in enumerate(encoded.input_ids)
        if place and encoded.assistant_mask[place]
    ]
    return sum(losses), len(losses)


def test_loss_is_that_of_plain_forward_passes(small_model: Path):
    """Batched, padded and computed at targets only, it equals that of one row at a time."""
    turns = [
        [
            Turn("user", "hello " * n),
            Turn("assistant", f"answer {n}"),
            Turn("user", "?"),
            Turn("assistant", "x" * n),
        ]
        for n in range(1, 99, 7)
    ]
    sources = ["a" if n % 3 else "b" for n in range(len(turns))]
    found = held_out_loss(small_model, _pool([Sample(tuple(t)) for t in turns], sources), "sft")
    slow = [_slow_loss(small_model, t) for t in turns]
    of_source = {}
    for name in ("a", "b"):
        mine = [loss for loss, source in zip(slow, sources, strict=True) if source == name]
        of_source[name] = sum(total for total, _ in mine) / sum(count for _, count in mine)
        assert found.sources[name].num_tokens == sum(count for _, count in mine)
        assert found.sources[name].loss == pytest.approx(of_source[name], rel=1e-5)
    assert found.loss == pytest.approx(sum(of_source.values()) / 2, rel=1e-5)
    said = sum(len(f"answer {n}" + "x" * n) for n in range(1, 99, 7))
    assert sum(source.num_bytes for source in found.sources.values()) == said
    assert (found.num_samples, found.num_cut, found.num_skipped) == (14, 0, 0)


def test_order_of_the_samples_does_not_matter(small_model: Path):
    """Loss and hash are the same for the same samples in another order."""
    samples = _talks(20)
    found = held_out_loss(small_model, samples, "sft")
    other = held_out_loss(small_model, samples.reverse(), "sft")
    assert other.loss == pytest.approx(found.loss, rel=1e-6)
    assert other.held_out == found.held_out == held_out_hash(samples)


def test_hash_tells_what_cannot_be_compared():
    """Other samples, sources or cuts have another hash."""
    samples = _talks(5)
    others = [
        held_out_hash(samples, 100),
        held_out_hash(samples.head(4)),
        held_out_hash(samples.with_columns(source=pl.lit("a"))),
        held_out_hash(samples),
    ]
    assert len(set(others)) == 4


def test_bytes_are_those_of_the_text(small_model: Path):
    """Bits per byte count bytes of UTF-8, not characters or tokens."""
    found = held_out_loss(small_model, _pool([_talk("1", "é ü € 😀 a ,b")], ["a"]), "sft")
    assert found.sources["a"].num_bytes == len("é ü € 😀 a ,b".encode()) == 19


def test_of_a_pair_the_chosen_answer_is_the_target(small_model: Path):
    """Answers in the prompt and the rejected answer do not count."""
    prompt = (Turn("user", "1"), Turn("assistant", "2"), Turn("user", "3"))
    pair = PreferencePair(prompt, (Turn("assistant", "4"),), (Turn("assistant", "5"),))
    found = held_out_loss(small_model, _pool([pair], ["a"]), "preference")
    both = _slow_loss(small_model, [*prompt, Turn("assistant", "4")])
    before = _slow_loss(small_model, list(prompt))
    assert found.sources["a"].num_tokens == both[1] - before[1] == 2
    assert found.sources["a"].num_bytes == 1
    assert found.loss == pytest.approx((both[0] - before[0]) / 2, rel=1e-5)


def test_accuracy_is_the_share_of_pairs_whose_chosen_answer_is_likelier(small_model: Path):
    """By mean over tokens, as plain forward passes tell, and every source counts the same."""
    prompt, answers = (Turn("user", "1"),), ["4", "xy", "a longer answer", "zzzz", "hello there"]
    pairs = [
        PreferencePair(prompt, (Turn("assistant", one),), (Turn("assistant", other),))
        for one in answers
        for other in answers
        if one != other
    ]
    sources = ["a" if len(pair.chosen[0].content) < 4 else "b" for pair in pairs]
    before = _slow_loss(small_model, list(prompt))
    means = {}
    for answer in answers:
        total, count = _slow_loss(small_model, [*prompt, Turn("assistant", answer)])
        means[answer] = (total - before[0]) / (count - before[1])
    shares = []
    for name in ("a", "b"):
        mine = [pair for pair, source in zip(pairs, sources, strict=True) if source == name]
        right = [means[p.chosen[0].content] < means[p.rejected[0].content] for p in mine]
        shares.append(sum(right) / len(right))
    assert 0 < sum(shares) < 2
    found = held_out_loss(small_model, _pool(pairs, sources), "preference")
    assert found.accuracy == pytest.approx(sum(shares) / 2)
    rated = RatedAnswer(prompt, (Turn("assistant", "4"),), True)
    assert held_out_loss(small_model, _pool([rated], ["a"]), "preference").accuracy is None
    assert held_out_loss(small_model, _talks(3), "sft").accuracy is None


def test_a_sample_without_a_chosen_answer_is_skipped(small_model: Path):
    """A desirable answer is measured as a chosen one is; an undesirable one is counted."""
    prompt, answer = (Turn("user", "1"),), (Turn("assistant", "4"),)
    good, bad = RatedAnswer(prompt, answer, True), RatedAnswer(prompt, answer, False)
    pair = PreferencePair(prompt, answer, (Turn("assistant", "5"),))
    found = held_out_loss(small_model, _pool([good, bad], ["a", "a"]), "preference")
    assert (found.num_samples, found.num_skipped) == (1, 1)
    assert found.loss == held_out_loss(small_model, _pool([pair], ["a"]), "preference").loss


def test_tools_are_part_of_what_the_model_reads(small_model: Path, tmp_path: Path):
    """They stand before the conversation, as in training; a table without them is read as ever."""
    said = (Turn("user", "1"), Turn("assistant", "2"))
    with_tools = _pool([Sample(said, tools="[]")], ["a"])
    as_text = _pool([Sample((Turn("system", "Tools: []"), *said))], ["a"])
    loss = held_out_loss(small_model, as_text, "sft").loss
    assert held_out_loss(small_model, with_tools, "sft").loss == loss
    plain = held_out_loss(small_model, with_tools.with_columns(tools=pl.lit("")), "sft").loss
    assert (
        held_out_loss(small_model, with_tools.drop("tools", "media"), "sft").loss == plain != loss
    )
    with_tools.write_parquet(tmp_path / "held.parquet")
    evaluate(_job(tmp_path, model=str(small_model)), SilentReporter())
    assert json.loads((tmp_path / "out" / "z.json").read_text())["loss"] == loss


def test_samples_that_do_not_fit_are_counted(small_model: Path):
    """An answer cut short counts with its beginning, one that is cut off altogether does not."""
    cut_off, cut, whole = _talk("1" * 50, "2"), _talk("1", "2" * 50), _talk("1", "2")
    samples = _pool([cut_off, cut, whole], ["a", "a", "b"])
    found = held_out_loss(small_model, samples, "sft", max_length=20)
    assert (found.num_samples, found.num_cut, found.num_skipped) == (2, 1, 1)
    assert found.sources["a"].num_bytes == found.sources["a"].num_tokens == 15
    with pytest.raises(ValueError, match="of 1 none has an answer within 20 tokens"):
        held_out_loss(small_model, _pool([cut_off], ["a"]), "sft", max_length=20)


def _job(folder: Path, **changed: object) -> Path:
    job = {"samples": str(folder / "held.parquet"), "output": str(folder / "out" / "z.json")}
    path = folder / "job.json"
    path.write_text(json.dumps(job | {"stage": "sft"} | changed))
    return path


@pytest.mark.slow
def test_evaluation_runs_as_a_process(small_model: Path, tmp_path: Path):
    """A JSON file says what to do; the result is a JSON file that appears whole."""
    _talks(9).write_parquet(tmp_path / "held.parquet")
    job = _job(tmp_path, model=str(small_model), max_length=500, fingerprint="of the model")
    command = [sys.executable, "-m", "zip_pipeline.evaluation.held_out", "--config", str(job)]
    run = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    found = json.loads((tmp_path / "out" / "z.json").read_text())
    assert found["loss"] == pytest.approx(sum(s["loss"] for s in found["sources"].values()) / 2)
    assert found["loss_spread"] > 0
    assert found["num_samples"] == 9
    assert found["held_out"] == held_out_hash(_talks(9), 500)
    assert f"{found['loss']:.4f} nats per token" in run.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"z.json", "z.hashes.json"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stage": "dpo"}, "job.json: stage is 'dpo'; allowed are sft, preference"),
        ({"max_length": 1}, "job.json: max_length is 1; must be 2 or more"),
        ({"samples": "none.parquet"}, "cannot read sample_id, source, turns from none.parquet"),
        ({"stage": "preference"}, "Give the held-out samples of the preference stage"),
        ({"model": "none"}, "model: cannot load 'none'"),
    ],
)
def test_wrong_job_is_one_line(
    tmp_path: Path,
    small_model: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, object],
    message: str,
):
    """Exit code 2, the reason on stderr, and no result."""
    _talks(3).write_parquet(tmp_path / "held.parquet")
    job = _job(tmp_path, **({"model": str(small_model)} | changed))
    assert main("held_out", evaluate, ["--config", str(job)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
