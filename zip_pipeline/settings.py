"""``zip_pipeline.toml`` of a data root, and settings that say in words what is wrong with them."""

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from zip_pipeline.errors import UserError, require
from zip_pipeline.files import read_toml, write_bytes

SETTINGS_FILE = "zip_pipeline.toml"
TABLES = (
    "sft", "preference", "mixture", "signals", "training", "held_out", "quality_audit", "mt_bench",
    "comparison", "preference_comparison", "alerts", "store",
)  # fmt: skip
# What older versions of this package read; the new file comes first.
_TABLES_BY_FILE = {
    SETTINGS_FILE: TABLES,
    "selection.toml": TABLES[:2],
    "training.toml": TABLES[4:8],
}
MAX_NUMBER = 2**63 - 1
# By field: the names that it may have as its value, and what each of them stands for.
Choices = Mapping[str, Callable[[], Mapping[str, str]]]


class Settings(BaseModel):
    """Settings that are checked when they are made.

    Raises:
        UserError: a value is unknown, missing or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    shows_texts: ClassVar[bool] = True
    """Whether an error repeats a wrong text; it may be a key that stands in the wrong place."""
    choices: ClassVar[Choices] = {}

    def __init__(self, /, **values: Any) -> None:  # noqa: ANN401
        try:
            super().__init__(**values)
        except ValidationError as error:
            # Not chained: pydantic's own words show every value.
            raise UserError(_in_words(error, type(self))) from None

    @field_validator("*")
    @classmethod
    def _is_known(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        name = str(info.field_name)
        if name in cls.choices and value is not None and value not in cls.choices[name]():
            raise UserError(f"got {value!r}; allowed are {cls.allowed(name)}")
        return value

    @classmethod
    def about(cls, name: str) -> str:
        """Return in words what a field is for, and what each of its choices is."""
        choices = cls.choices[name]() if name in cls.choices else {}
        said = "; ".join(f"{choice}: {words}" for choice, words in choices.items() if words)
        return f"{cls.model_fields[name].description}{f' {said}.' if said else ''}"

    @classmethod
    def allowed(cls, name: str) -> str:
        """Return what a field takes, as ``zip, random`` or ``1 to 22``; empty without a limit."""
        if name in cls.choices:
            return ", ".join(cls.choices[name]())
        limits = {type(limit).__name__: limit for limit in cls.model_fields[name].metadata}
        if "Gt" in limits:
            most = f", at most {limits['Le'].le}" if "Le" in limits else ""
            return f"above {limits['Gt'].gt}{most}"
        if "Le" in limits:
            most = "2^63 - 1" if limits["Le"].le == MAX_NUMBER else limits["Le"].le
            return f"{limits['Ge'].ge} to {most}"
        return f"{limits['Ge'].ge} and up" if "Ge" in limits else ""


class TrainingSettings(Settings):
    """How the versions are probed and trained: the table ``[training]``."""

    preset: str = Field(
        default="tiny",
        description="tiny (a smoke test, offline), smollm2-135m, smollm2-135m-lora, mistral-7b, "
        "llama-3-8b, or the path of a TOML file.",
    )
    overrides: dict[str, Any] = Field(
        default={},
        description='Settings of the preset to replace, as {"model": "/models/mine", '
        '"sft.learning_rate": 1e-5}; zip-pipeline train-plan shows what they come to.',
    )
    num_devices: int = Field(
        default=1, ge=1, description="GPUs of this machine that train together."
    )
    trainer: str = Field(
        default="",
        description="The way to train the versions of the stage that it is for; if not given, sft "
        "and kto.",
    )
    sft_model: str = Field(
        default="",
        description="Folder of an SFT model that preference/model starts from; if not given, the "
        "newest one of this data root.",
    )

    def job(self) -> dict[str, Any]:
        """Return what a job of probe or training is told of them."""
        return self.model_dump(exclude={"sft_model"})


_Settings = TypeVar("_Settings", bound=Settings)


def read_settings(
    data_root: Path,
    table: str,
    kind: type[_Settings],
    *,
    changes: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> _Settings:
    """Return the settings of a table, those of an empty table where it is not there.

    Args:
        data_root: the folder with the file.
        table: one of ``TABLES``.
        kind: the table's settings.
        changes: values that replace those of the file, which must be right nevertheless.
        defaults: values that differ from the defaults of ``kind``.

    Raises:
        UserError: the file is wrong (see :func:`read_table`), or a value of the table or a change
            is unknown or out of range.
    """
    path, values = read_table(data_root, table) or (data_root / SETTINGS_FILE, {})
    values = {**(defaults or {}), **values}
    try:
        settings = kind(**values)
    except UserError as error:
        raise UserError(f"{path}: [{table}] {error}") from None
    return kind(**{**values, **changes}) if changes else settings


def training_settings(
    data_root: Path, changes: Mapping[str, Any] | None = None
) -> TrainingSettings:
    """Return what the table [training] says, changed; see :func:`read_settings`."""
    return read_settings(data_root, "training", TrainingSettings, changes=changes)


def read_table(data_root: Path, table: str) -> tuple[Path, dict[str, Any]] | None:
    """Return one table and the file that it stands in; None where there is no such table.

    Names of tables are looked at whichever table is read, as a misspelt table would else count
    as none. Values are not shown: one may be a key.

    Raises:
        UserError: a file is no TOML in UTF-8, has another table or a key outside the tables, or a
            value in place of a table, or the table is in two files.
    """
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for name, allowed in _TABLES_BY_FILE.items():
        path = data_root / name
        for key, value in _read(path).items():
            _check_table(path, key, value, allowed)
            if key in found:
                raise UserError(
                    f"{path}: [{key}] stands in {found[key][0]} as well. Keep it there, and remove "
                    f"it from {name}"
                )
            found[key] = path, value
            if name != SETTINGS_FILE:
                _warn(f"{path}: [{key}] belongs into {SETTINGS_FILE} beside it now; move it there")
    return found.get(table)


def write_table(data_root: Path, table: str, values: Mapping[str, Any]) -> None:
    """Change values of a table of ``zip_pipeline.toml``; what else stands there stays as it is.

    Args:
        data_root: the folder with the file, which is made where it is not there.
        table: one of ``TABLES``.
        values: the new ones by key; None takes the key out.

    Raises:
        UserError: the file is wrong (see :func:`read_table`), or the table stands in a file of an
            older release.
    """
    require("tomlkit", f"changing {SETTINGS_FILE}")
    import tomlkit

    path = data_root / SETTINGS_FILE
    found = read_table(data_root, table)
    if found is not None and found[0] != path:
        raise UserError(f"{found[0]}: [{table}] belongs into {SETTINGS_FILE} now; move it there")
    document = tomlkit.parse(path.read_text(encoding="utf-8") if path.exists() else "")
    changed = document.setdefault(table, tomlkit.table())
    for key, value in values.items():
        if value is not None:
            changed[key] = value
        elif key in changed:
            del changed[key]
    write_bytes(path, tomlkit.dumps(document).encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except FileNotFoundError:
        return {}


def _check_table(path: Path, name: str, value: object, known: tuple[str, ...]) -> None:
    if name not in known:
        found = f"the table [{name}]" if isinstance(value, dict) else f"{name}, outside the tables,"
        allowed = ", ".join(f"[{table}]" for table in known)
        raise UserError(
            f"{path}: {found} is not known; allowed are the tables {allowed}. Correct or remove it"
        )
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise UserError(f"{path}: {name} must be a table [{name}], is {kind}. Correct it")


@functools.cache
def _warn(text: str) -> None:
    """Log a warning once in a process: the settings are read again and again."""
    logging.getLogger(__name__).warning(text)


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "a text",
    "bool": "true or false",
    "path": "a path",
    "tuple": "a list",
    "dict": "a table",
    "model": "a table",
}


def _in_words(error: ValidationError, kind: type[Settings]) -> str:
    """Return what is wrong first, as ``k3: got 0; allowed are whole numbers, 1 and up``."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    name, key = ".".join(place), place[0] if place else ""
    if first["type"] == "value_error":
        return f"{name}: {first['ctx']['error']}" if name else str(first["ctx"]["error"])
    if first["type"] == "extra_forbidden":
        return f"{name}: unknown; allowed are {', '.join(kind.model_fields)}. Correct or remove it"
    if first["type"] == "missing":
        needed = [name for name, field in kind.model_fields.items() if field.is_required()]
        return f"{name}: missing; needed are {', '.join(needed)}. Add it"
    # What is not among our words is said in pydantic's: "Input should be 'a' or 'b'".
    pydantic_words = str(first["msg"]).partition(" should be ")[2] or str(first["msg"])
    wanted = f"it must be {_TYPES.get(first['type'].partition('_')[0], pydantic_words)}"
    if allowed := kind.allowed(key):
        is_whole = "int" in str(kind.model_fields[key].annotation)
        wanted = f"allowed are {'whole ' * is_whole}numbers, {allowed}"
    return f"{name}: got {_shown(first['input'], kind)}; {wanted}"


def _shown(value: object, kind: type[Settings]) -> str:
    if kind.shows_texts or isinstance(value, int | float):
        return repr(value)
    return f"a value of type {type(value).__name__}"
