"""A trained model in this process."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from zip_pipeline.chat_models import load_model, load_tokenizer
from zip_pipeline.chat_tokens import encode
from zip_pipeline.evaluation.local_model import LocalModel
from zip_pipeline.judge.client import Exchange, Message, Reply, RequestRefused
from zip_pipeline.samples import Turn
from zip_pipeline_tests.evaluation.small_model import save_small_model

TALK = [
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "Fine."},
    {"role": "user", "content": "And now?"},
]


def asks(text: str) -> list[Message]:
    """Return a conversation of one question."""
    return [{"role": "user", "content": text}]


def complete(
    model: LocalModel, messages: list[Message], *, temperature: float, max_tokens: int
) -> Reply:
    """Return the model's answer to a conversation."""
    conversation = tuple(messages)
    return model.complete(
        Exchange(model="any", messages=conversation, temperature=temperature, max_tokens=max_tokens)
    )


def slow_greedy(folder: Path, messages: list[Message], num_tokens: int) -> list[int]:
    """Return the likeliest tokens one by one, each from a whole forward pass."""
    tokenizer, model = load_tokenizer(str(folder), None), load_model(str(folder), None)
    turns = [Turn(message["role"], message["content"]) for message in messages]
    ids = encode(tokenizer, [turns], open_answer=True)[0].input_ids.tolist()
    said: list[int] = []
    with torch.no_grad():
        for _ in range(num_tokens):
            said.append(int(model(torch.tensor([ids + said])).logits[0, -1].argmax()))
    return said


def test_answer_at_temperature_0_is_the_likeliest(small_model: Path):
    """The whole conversation is read through the chat template, and every token is the argmax."""
    reply = complete(LocalModel(small_model), TALK, temperature=0, max_tokens=12)
    tokenizer = load_tokenizer(str(small_model), None)
    said = slow_greedy(small_model, TALK, 12)
    assert reply.text == tokenizer.decode(said, skip_special_tokens=True).strip()
    assert reply.text
    assert reply.finish_reason == "length"
    last = slow_greedy(small_model, TALK[2:], 12)
    assert last != said


def test_sampled_answer_is_the_same_in_every_run(small_model: Path):
    """The seed comes from the request, not from what was asked before or is asked elsewhere."""
    first, second = LocalModel(small_model), LocalModel(small_model)
    reply = complete(first, TALK, temperature=0.7, max_tokens=12)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    complete(second, asks("Hello"), temperature=0.7, max_tokens=12)
    assert complete(second, TALK, temperature=0.7, max_tokens=12) == reply
    assert torch.equal(torch.get_rng_state(), before)
    others = [
        complete(first, TALK, temperature=0.8, max_tokens=12),
        complete(first, TALK, temperature=0, max_tokens=12),
        complete(first, asks("Hello"), temperature=0.7, max_tokens=12),
    ]
    assert len({other.text for other in [*others, reply]}) == 4


def test_threads_get_the_answers_of_one_thread(small_model: Path):
    """Requests at once do not disturb each other's sampling."""
    model = LocalModel(small_model)

    def ask(number: int) -> Reply:
        return complete(model, asks(f"{number}"), temperature=0.7, max_tokens=8)

    one_by_one = [ask(number) for number in range(6)]
    with ThreadPoolExecutor(3) as executor:
        assert list(executor.map(ask, range(6))) == one_by_one


def test_models_own_sampling_settings_do_not_count(tmp_path: Path, small_model: Path):
    """The benchmark's temperature alone shapes the distribution: no top_k, not even of 50."""
    folder = save_small_model(tmp_path, top_k=1, top_p=0.1, repetition_penalty=3.0, do_sample=True)
    own, plain = LocalModel(folder), LocalModel(small_model)
    for temperature in (0.0, 0.7):
        settings = {"temperature": temperature, "max_tokens": 20}
        assert complete(own, TALK, **settings) == complete(plain, TALK, **settings)


def test_sampling_has_the_whole_vocabulary(small_model: Path):
    """At a high temperature hardly a token is among the 50 likeliest, as a top_k would have it."""
    model, network = LocalModel(small_model), load_model(str(small_model), None)
    tokenizer = load_tokenizer(str(small_model), None)
    unlikely = []
    for number in range(6):
        turns = [Turn("user", f"{number}")]
        ids = encode(tokenizer, [turns], open_answer=True)[0].input_ids
        with torch.no_grad():
            likeliest = network(torch.tensor([ids])).logits[0, -1].topk(50).indices
        likely = {tokenizer.decode([token]).strip() for token in likeliest.tolist()}
        text = complete(model, asks(f"{number}"), temperature=50.0, max_tokens=1).text
        unlikely.append(text not in likely)
    assert sum(unlikely) >= 5


def test_answer_ends_at_an_end_token(tmp_path: Path, small_model: Path):
    """A token that the model's settings name as its end stops the answer and is not shown."""
    said = slow_greedy(small_model, TALK, 12)
    place = next(n for n in range(2, 12) if said[n] not in said[:n])
    folder = save_small_model(tmp_path, eos_token_id=[said[place], 1])
    reply = complete(LocalModel(folder), TALK, temperature=0, max_tokens=12)
    tokenizer = load_tokenizer(str(folder), None)
    assert reply == Reply(tokenizer.decode(said[: place + 1]).strip(), "stop")


def test_answer_ends_where_the_context_ends(small_model: Path):
    """A prompt with little room gets a short answer, one with none is refused with its length."""
    model = LocalModel(small_model)
    tokenizer = load_tokenizer(str(small_model), None)

    def num_tokens(count: int) -> int:
        turns = [Turn("user", "z" * count)]
        return len(encode(tokenizer, [turns], open_answer=True)[0].input_ids)

    fits = max(n for n in range(100, 700) if num_tokens(n) < 160)
    reply = complete(model, asks("z" * fits), temperature=0, max_tokens=1024)
    assert reply.finish_reason == "length"
    assert len(reply.text) < 40
    with pytest.raises(RequestRefused, match=r"of 160 tokens leaves no room .* of 160$"):
        complete(model, asks("z" * (fits + 1)), temperature=0, max_tokens=1)
    assert complete(model, asks("Hi"), temperature=0, max_tokens=2).finish_reason == "length"


def test_folder_without_a_model_is_refused(tmp_path: Path, small_model: Path):
    """What is missing is said with the folder: at once, or when damaged weights are read."""
    with pytest.raises(ValueError, match=r"model: .* holds no model"):
        LocalModel(tmp_path)
    damaged = shutil.copytree(small_model, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="model: cannot load"):
        complete(LocalModel(damaged), asks("Hi"), temperature=0, max_tokens=2)
