"""Signal reward_gap against a plain loop over two transformers models."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from zip_pipeline.chat_tokens import encode
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.samples import PreferencePair, RatedAnswer, Turn
from zip_pipeline.signals import settings_of
from zip_pipeline.workflow.signals import preset_model, wanted_signal
from zip_pipeline_tests.evaluation.small_model import save_small_model
from zip_pipeline_tests.signals.measured import measured, table_of

PROMPT = (Turn("user", "1?"), Turn("assistant", "It is one."), Turn("user", "2?"))


def said(text: str) -> tuple[Turn, ...]:
    """Return an answer of one turn."""
    return (Turn("assistant", text),)


ROWS = [
    PreferencePair(PROMPT, said("Two it is."), said("Three, no, four, and so on.")),
    RatedAnswer(PROMPT, said("Two it is."), True),
    PreferencePair((Turn("user", "Hello " * 9),), said("Hi."), said("Go away.")),
    RatedAnswer(PROMPT, said("Two it is."), False),
    PreferencePair((Turn("user", "word 1 " * 60),), said("Hi."), said("Go away.")),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of another model."""
    return str(save_small_model(tmp_path_factory.mktemp("model")))


def log_probability(name: str, prompt: Sequence[Turn], answer: Sequence[Turn]) -> float:
    """Return the log probability of an answer after what opens it, as KTO reads both."""
    model = preset_model(name)
    tokenizer, network = model.tokenizer(), model.network().eval()
    (whole,) = encode(tokenizer, [[*prompt, *answer]])
    (opening,) = encode(tokenizer, [prompt], open_answer=True)
    ids, start = whole.input_ids, len(opening.input_ids)
    assert ids[:start] == opening.input_ids
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    places = range(start, start + sum(whole.assistant_mask[start:]))
    return sum(logits[place - 1, ids[place]].item() for place in places)


@pytest.mark.parametrize("block", [2, 100])
def test_gap_is_that_of_a_plain_loop(trained: str, block: int) -> None:
    """Answers of the prompt and single answers do not count; nor do pairs that are cut off."""
    table = table_of(ROWS, "preference")
    found = measured("reward_gap", table, "preference", block, model=trained, max_length=70)
    expected = [
        0.1
        * sum(
            sign * own * log_probability(name, pair.prompt, answer)
            for own, name in ((1, trained), (-1, "tiny"))
            for sign, answer in ((1, pair.chosen), (-1, pair.rejected))
        )
        for pair in (ROWS[0], ROWS[2])
    ]
    gaps = found["gap"].to_list()
    assert [gaps[0], gaps[2]] == pytest.approx(expected, abs=1e-4)
    assert [gaps[1], gaps[3], gaps[4]] == [None] * 3


def test_a_model_has_no_gap_to_itself() -> None:
    """Both read the same template and give the same figures."""
    found = measured("reward_gap", table_of(ROWS[:1], "preference"), "preference", model="tiny")
    assert found["gap"].to_list() == [0]


def test_it_asks_for_a_model_and_for_pairs(trained: str) -> None:
    """Both are refused before anything is measured; another model is another identity."""
    with pytest.raises(UserError, match="signals: reward_gap: model: missing; needed are model"):
        settings_of("reward_gap", {})
    given, root = {"reward_gap": {"model": trained}}, DataRoot(Path(trained))
    with pytest.raises(UserError, match="reward_gap measures preference, not sft"):
        wanted_signal("reward_gap", given, root["sft"])
    one, other = (
        wanted_signal("reward_gap", {"reward_gap": {"model": name}}, root["preference"]).identity
        for name in (trained, "tiny")
    )
    assert one != other
    assert Path(trained).is_dir()
