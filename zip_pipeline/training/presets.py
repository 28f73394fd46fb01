"""Training settings as files, the shipped presets and the user's own, and chat templates."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zip_pipeline.chat_models import load_tokenizer
from zip_pipeline.compression.tokens import TINY_MODEL
from zip_pipeline.errors import UserError
from zip_pipeline.files import read_toml
from zip_pipeline.training.packaged import PACKAGED, packaged_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FOLDER = Path(__file__).parent / "presets"
_TEMPLATES_FOLDER = FOLDER.parent / "templates"
ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
WEIGHTS = ("float32", "bfloat16")
# The name of the template that the model's tokenizer brings.
OWN_TEMPLATE = "model"
_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_Section = TypeVar("_Section")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chat template and the special tokens that it needs."""

    name: str
    end_token: str
    """ends every turn of the assistant; the model learns to write it"""
    pad_token: str

    @property
    def text(self) -> str:
        """Return the template in Jinja, with generation markers around the assistant's words."""
        return (_TEMPLATES_FOLDER / f"{self.name}.jinja").read_text(encoding="utf-8")


TEMPLATES = {
    "tiny": Template(name="tiny", end_token="<|end|>", pad_token="<|pad|>"),
    "vicuna": Template(name="vicuna", end_token="</s>", pad_token="<unk>"),
    "chatml": Template(name="chatml", end_token="<|im_end|>", pad_token="<|endoftext|>"),
    "llama-3": Template(name="llama-3", end_token="<|eot_id|>", pad_token="<|end_of_text|>"),
}


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise UserError(f"preset: {name} is {value!r}; allowed is {allowed}. Correct the setting")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How one of the two stages trains."""

    epochs: int
    """passes over the rows"""
    learning_rate: float
    """peak of the schedule"""
    batch_size: int | None = None
    """rows of an optimizer step over all devices, where it differs from the preset's"""
    per_device_batch_size: int | None = None
    """most rows that one device takes at once, where it differs from the preset's"""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require(0 < self.learning_rate < 1, "learning_rate", self.learning_rate, "between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How L is measured."""

    steps: int = 20
    """optimizer steps of epoch one whose loss is averaged"""
    warmup_steps: int = 2
    """linear warm-up; a fixed number, so that it does not change with the size of a version"""

    def __post_init__(self) -> None:
        _require(self.steps >= 3, "probe.steps", self.steps, "3 or more")
        in_range = 0 <= self.warmup_steps <= self.steps
        _require(in_range, "probe.warmup_steps", self.warmup_steps, f"0 to {self.steps}")


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters in place of full fine-tuning; they are merged into the saved model."""

    rank: int = 16
    """rank of the adapters"""
    alpha: int = 32
    """scale of the adapters"""
    dropout: float = 0.0
    """dropout in front of the adapters"""
    target_modules: str = "all-linear"
    """which layers get adapters, as peft names them"""

    def __post_init__(self) -> None:
        _require(self.rank >= 1, "lora.rank", self.rank, "1 or more")
        _require(0 <= self.dropout < 1, "lora.dropout", self.dropout, "0 to below 1")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The size of a model that is not at hand, for the plan."""

    num_parameters: int
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    vocabulary_size: int


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Everything that training depends on besides the rows."""

    name: str
    """the file's name without its ending"""
    model: str
    """``tiny``, ``smollm2-135m``, a local folder, or an id on the Hugging Face hub"""
    template: str
    """chat template: one of :data:`TEMPLATES`, or ``model`` for the tokenizer's own"""
    sft: Stage
    kto: Stage
    probe: Probe
    revision: str | None = None
    """commit of the hub repository; needed for a hub id"""
    max_length: int = 2048
    """tokens of a row (of a pack, where rows are packed)"""
    batch_size: int = 128
    """rows (packs) of an optimizer step over all devices"""
    per_device_batch_size: int = 4
    """most rows (packs) that one device takes at once"""
    warmup_share: float = 0.1
    """share of the steps in which the learning rate rises"""
    packing: bool = False
    """several conversations in one row, none of which attends to another (SFT only)"""
    attention: str = "auto"
    """backend; ``auto`` is flash_attention_2 where it is installed and there is a GPU, else sdpa"""
    weights: str = "float32"
    """type of the weights on a GPU, where computing is in bfloat16; on a CPU all is float32"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, a fifth slower"""
    sharding: bool = False
    """spread weights, gradients and optimizer over the devices (FSDP), so that each holds its share
    alone; for full fine-tuning of what does not fit one device, not together with ``lora``"""
    checkpoint_steps: int = 50
    """optimizer steps between two checkpoints"""
    seed: int = 0
    """of the row order and of adapters"""
    lora: Lora | None = None
    architecture: Architecture | None = None

    def __post_init__(self) -> None:
        names = (*TEMPLATES, OWN_TEMPLATE)
        _require(self.template in names, "template", self.template, str(names))
        _require(self.attention in ATTENTIONS, "attention", self.attention, str(ATTENTIONS))
        _require(self.weights in WEIGHTS, "weights", self.weights, str(WEIGHTS))
        _require(self.max_length >= 8, "max_length", self.max_length, "8 or more")
        _require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more")
        size = self.per_device_batch_size
        _require(size >= 1, "per_device_batch_size", size, "1 or more")
        _require(0 <= self.warmup_share < 1, "warmup_share", self.warmup_share, "0 to below 1")
        _require(self.checkpoint_steps >= 1, "checkpoint_steps", self.checkpoint_steps, "1 or more")
        # A float compares equal to its whole part but has no bits to count.
        in_range = isinstance(self.seed, int) and 0 <= self.seed < 2**32
        _require(in_range, "seed", self.seed, "0 to 2^32 - 1")
        both = self.sharding and self.lora is not None
        _require(not both, "sharding", self.sharding, "false together with lora")
        is_local = Path(self.source).exists()
        _require(bool(is_local or self.revision), "revision", self.revision, "a hub commit")

    @property
    def source(self) -> str:
        """The folder or hub id of the model; that of ``tiny`` ships with the package.

        Raises:
            UserError: the model comes with a package that is not installed.
        """
        if self.model in PACKAGED:
            return str(packaged_model(self.model))
        return str(TINY_MODEL) if self.model == "tiny" else self.model

    def batch(self, stage: Stage) -> tuple[int, int]:
        """Return the rows of an optimizer step and the most that one device takes at once."""
        return (
            stage.batch_size or self.batch_size,
            stage.per_device_batch_size or self.per_device_batch_size,
        )

    def settings(self) -> dict[str, Any]:
        """Return everything but the name, ready for JSON."""
        return {key: value for key, value in asdict(self).items() if key != "name"}


_SECTIONS = {"sft": Stage, "kto": Stage, "probe": Probe, "lora": Lora, "architecture": Architecture}


def preset_names() -> list[str]:
    """Return the names of the shipped presets."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_preset(name: str, overrides: Mapping[str, Any] | None = None) -> Preset:
    """Return a preset, with some settings replaced.

    Args:
        name: a shipped preset (see :func:`preset_names`) or a TOML file.
        overrides: settings by name, those of a section by ``section.name`` or as a dictionary.

    Raises:
        UserError: there is no such preset, or a setting is unknown, missing or out of range.
    """
    path = FOLDER / f"{name}.toml" if name in preset_names() else Path(name)
    if not path.is_file():
        raise UserError(
            f"preset: got {name!r}; allowed are {', '.join(preset_names())} and the path of a TOML "
            "file. Check the spelling"
        )
    return preset_from({"name": path.stem, **read_toml(path)}, overrides)


def preset_from(values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Preset:
    """Return a preset from plain values, as :meth:`Preset.settings` and a TOML file give them.

    Args:
        values: all settings and the name.
        overrides: settings that replace them, as :func:`load_preset` takes them.

    Raises:
        UserError: a setting is unknown, missing or out of range.
    """
    built = _overridden(values, overrides or {})
    for name, kind in _SECTIONS.items():
        if built.get(name) is not None:
            if not isinstance(built[name], Mapping):
                raise UserError(f"preset: {name} is {built[name]!r}; it must be a section")
            built[name] = _build(kind, built[name], f"{name}.")
    return _build(Preset, built)


def apply_template(tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
    """Give a tokenizer the chat template of that name and the special tokens that it needs.

    ``model`` keeps its own template and tokens; padding is done with the end token where it has
    none for it.

    Raises:
        UserError: the tokenizer lacks one of the tokens, or a template that training can use.
    """
    if name == OWN_TEMPLATE:
        _require_own_template(tokenizer)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return
    template = TEMPLATES[name]
    vocabulary = tokenizer.get_vocab()
    for token in (template.end_token, template.pad_token):
        if token not in vocabulary:
            raise UserError(
                f"template: {name} needs the token {token}, which the model's tokenizer lacks. "
                f"Choose the template of the model; there are {', '.join(TEMPLATES)}"
            )
    tokenizer.chat_template = template.text
    tokenizer.eos_token = template.end_token
    tokenizer.pad_token = template.pad_token


def _require_own_template(tokenizer: "PreTrainedTokenizerBase") -> None:
    template = tokenizer.chat_template
    if not isinstance(template, str):
        lacking = "no chat template" if template is None else "several chat templates, not one"
    elif not _GENERATION_MARK.search(template):
        lacking = "a chat template without {% generation %} marks around the assistant's words"
    elif tokenizer.eos_token is None:
        lacking = "no end token (eos_token)"
    else:
        return
    raise UserError(
        f"template: model takes the tokenizer's own, but it has {lacking}. Choose one of "
        f"{', '.join(TEMPLATES)}, or mend it in a local copy of the model"
    )


def template_text(name: str, source: str, revision: str | None) -> str:
    """Return the chat template of that name, for ``model`` that of a model: a folder or hub id.

    Raises:
        UserError: see :func:`templated_tokenizer`.
    """
    if name == OWN_TEMPLATE:
        return str(templated_tokenizer(source, revision, name).chat_template)
    return TEMPLATES[name].text


def templated_tokenizer(
    source: str, revision: str | None, template: str, *, local_only: bool = False
) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a model, a folder or hub id, with the chat template of that name.

    Raises:
        UserError: there is no such model, or its tokenizer lacks what the template needs.
    """
    tokenizer = load_tokenizer(source, revision, local_only=local_only)
    apply_template(tokenizer, template)
    return tokenizer


def _overridden(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    replaced = dict(values)
    for key, value in overrides.items():
        section, _, inner = key.rpartition(".")
        name, new = (section, {inner: value}) if section else (key, value)
        is_section = isinstance(new, Mapping)
        replaced[name] = {**(replaced.get(name) or {}), **new} if is_section else new
    return replaced


def _build(kind: type[_Section], values: Mapping[str, Any], prefix: str = "") -> _Section:
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise UserError(
            f"preset: unknown setting {prefix}{unknown[0]}; allowed are "
            f"{', '.join(prefix + name for name in known)}. Check the spelling"
        )
    missing = [n for n, f in known.items() if f.default is MISSING and n not in values]
    if missing:
        raise UserError(f"preset: the setting {prefix}{missing[0]} is missing. Add it")
    for name, value in values.items():
        _check_type(f"{prefix}{name}", value, known[name].type)
    return kind(**values)


def _check_type(name: str, value: object, wanted: Any) -> None:  # noqa: ANN401  a type or a union
    """Refuse text for a number and the like; a whole number may stand for a float."""
    allowed = int | float if wanted is float else wanted
    is_wrong_bool = isinstance(value, bool) and wanted is not bool
    if is_wrong_bool or not isinstance(value, allowed):
        kind = getattr(wanted, "__name__", wanted)
        raise UserError(f"preset: {name} is {value!r}; it must be of type {kind}. Correct it")
