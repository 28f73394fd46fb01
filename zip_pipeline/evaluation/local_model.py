"""A trained model in this process as one that answers conversations."""

import json
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zip_pipeline.chat_models import load_model, load_tokenizer, prepare_environment
from zip_pipeline.chat_tokens import encode
from zip_pipeline.errors import UserError
from zip_pipeline.files import fingerprint
from zip_pipeline.judge.client import Exchange, Reply, RequestRefused
from zip_pipeline.samples import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LocalModel:
    """A model folder that answers with its own chat template; threads wait for each other.

    The same conversation gets the same answer in every process on the same kind of machine:
    sampling is seeded by the request. The weights are read with the first request.

    Args:
        folder: with ``config.json``, safetensors, and a tokenizer with a chat template.

    Raises:
        UserError: the folder holds no model.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise UserError(f"model: {folder} holds no model; give the folder of a trained one")
        self._folder = folder
        self._lock = threading.Lock()

    def complete(self, exchange: Exchange) -> Reply:
        """Return the model's answer.

        Raises:
            UserError: the model cannot be loaded.
            RequestRefused: the conversation leaves no room for an answer.
        """
        turns = [Turn(message["role"], message["content"]) for message in exchange.messages]
        with self._lock:
            ids = encode(self._tokenizer, [turns], open_answer=True)[0].input_ids.tolist()
            num_positions = int(self._network.config.max_position_embeddings)
            room = num_positions - len(ids)
            if room < 1:
                raise RequestRefused(
                    f"{self._folder}: a conversation of {len(ids)} tokens leaves no room for an "
                    f"answer in a context of {num_positions}"
                )
            said = self._generated(ids, exchange, min(exchange.max_tokens, room))
        is_ended = bool(said) and said[-1] in self._end_tokens
        text: Any = self._tokenizer.decode(
            said, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Reply(str(text).strip(), "stop" if is_ended else "length")

    @cached_property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        prepare_environment(offline=True)
        return load_tokenizer(str(self._folder), None)

    @cached_property
    def _network(self) -> Any:  # noqa: ANN401  PreTrainedModel, whose generate has no types
        prepare_environment(offline=True)
        import torch
        from transformers import GenerationConfig

        on_gpu = torch.cuda.is_available()
        model: Any = load_model(str(self._folder), None, "bfloat16" if on_gpu else "float32")
        # What a request leaves open, the model's own settings (a top_p, say) would fill in.
        own = model.generation_config
        model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            eos_token_id=own.eos_token_id
        )
        return model.to("cuda" if on_gpu else "cpu").eval()

    @cached_property
    def _end_tokens(self) -> list[int]:
        own = self._network.generation_config.eos_token_id
        known = [*(own if isinstance(own, list) else [own]), self._tokenizer.eos_token_id]
        return sorted({int(token) for token in known if token is not None})

    def _generated(self, ids: Sequence[int], exchange: Exchange, max_tokens: int) -> list[int]:
        import torch
        from transformers import GenerationConfig

        asked = json.dumps([sorted(message.items()) for message in exchange.messages])
        temperature = exchange.temperature
        seed = int(fingerprint([asked, repr(temperature), str(exchange.max_tokens)])[:15], 16)
        # 0 leaves the whole vocabulary in; by default 50 tokens are.
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0}
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            **(sampling if temperature > 0 else {"do_sample": False}),
            max_new_tokens=max_tokens,
            eos_token_id=self._end_tokens,
            pad_token_id=next(iter(self._end_tokens), 0),
        )
        prompt = torch.tensor([ids], device=self._network.device)
        devices = [prompt.device] if prompt.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            output = self._network.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=settings,
            )
        return list(output[0, len(ids) :].tolist())
