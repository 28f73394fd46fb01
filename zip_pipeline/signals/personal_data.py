"""Signal ``personal_data``: addresses, numbers and secrets of people in a sample."""

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, ClassVar, NamedTuple, TypeAlias

import polars as pl
from pydantic import Field, field_validator

from zip_pipeline.errors import UserError
from zip_pipeline.samples import TURN_COLUMNS, Stage, Turn
from zip_pipeline.settings import Choices, Settings
from zip_pipeline.signals import Measure, Signal, Tools
from zip_pipeline.signals.turn_texts import PLACE, gathered, tool_texts, turn_texts

Span: TypeAlias = Mapping[str, Any]
_SPAN = pl.Schema({**PLACE, "kind": pl.String})
_COUNT = pl.Schema({"kind": pl.String, "num": pl.Int64})


class PersonalDataSettings(Settings):
    """What becomes of samples with personal data: the table ``[signals.personal_data]``."""

    policy: str = Field(
        default="report", description="What becomes of samples with personal data or secrets."
    )
    kinds: list[str] = Field(
        default=[],
        description="The kinds that the policy is for: mail, phone, card, iban, ip, api_key, "
        "cloud_token, jwt, private_key. If not given, all of them.",
    )
    choices: ClassVar[Choices] = {
        "policy": lambda: {
            "report": "they are told, and stay",
            "exclude": "they take no part",
            "mask": "they stay, and exported texts have the kind in its place",
        }
    }

    @field_validator("kinds")
    @classmethod
    def _are_kinds(cls, kinds: list[str]) -> list[str]:
        names = sorted({kind.name for kind in _KINDS})
        for kind in kinds:
            if kind not in names:
                raise UserError(f"got {kind!r}; allowed are {', '.join(names)}")
        return kinds


class PersonalData(Signal):
    """Mail addresses, phone numbers, cards, IBANs, IP addresses, keys, tokens and private keys.

    Cards and IBANs count with a right check sum. What documentation uses is not personal:
    example.com and what is reserved like it, 192.0.2.x and private networks, phone numbers with
    555, the test cards of payment services.
    """

    name = "personal_data"
    description = "personal data and secrets: which kinds, how many, and where"
    settings = PersonalDataSettings
    columns = pl.Schema({"kinds": pl.List(pl.Struct(_COUNT)), "spans": pl.List(pl.Struct(_SPAN))})
    block = 4096
    fate = "personal_data"

    def identity(self, settings: PersonalDataSettings, tools: Tools) -> str:
        """Return the version of the patterns."""
        return "patterns 2"

    @contextmanager
    def open(self, settings: PersonalDataSettings, stage: Stage, tools: Tools) -> Iterator[Measure]:
        """Give what searches."""

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            texts = pl.concat([turn_texts(samples, stage), tool_texts(samples)])
            spans = gathered(_spans_of(texts), samples.height, _SPAN)
            counts = [Counter(span["kind"] for span in found) for found in spans.to_list()]
            kinds = [[{"kind": k, "num": n} for k, n in sorted(c.items())] for c in counts]
            return pl.DataFrame({"kinds": kinds, "spans": spans}, schema=self.columns)

        yield measure

    def marks(self, table: pl.DataFrame, settings: PersonalDataSettings) -> pl.Series:
        """Return which kinds stand in the sample, and where the first one does."""
        if settings.policy != "exclude":
            return super().marks(table, settings)
        rows = (spans_of_kinds(spans or (), settings) for spans in table["spans"].to_list())
        return pl.Series("mark", [_in_words(spans) for spans in rows], dtype=pl.String)

    def by_source(self, sources: pl.Series, table: pl.DataFrame) -> pl.DataFrame:
        """Return how many samples of each source have each kind: ``kind``, ``source``, ``num``."""
        found = table.select("kinds").with_columns(source=sources)
        kinds = found.explode("kinds", empty_as_null=False).drop_nulls("kinds")
        kinds = kinds.select("source", kind=pl.col("kinds").struct.field("kind"))
        return kinds.group_by("kind", "source").agg(num=pl.len()).sort("kind", "source")

    def masked(
        self,
        samples: pl.DataFrame,
        table: pl.DataFrame,
        settings: PersonalDataSettings,
        stage: Stage,
    ) -> pl.DataFrame:
        """Return samples with the kind in place of what was found, also in the record."""
        if settings.policy != "mask":
            return samples
        found = [spans_of_kinds(spans or (), settings) for spans in table["spans"].to_list()]
        rows = samples.to_dicts()
        for row, spans in zip(rows, found, strict=True):
            if spans:
                row.update(_masked_row(row, spans, TURN_COLUMNS[stage]))
        return pl.DataFrame(rows, schema=samples.schema)


def _masked_row(
    row: Mapping[str, Any], spans: Sequence[Span], columns: Sequence[str]
) -> dict[str, Any]:
    """Return the columns that change: turns, tools, and the record that they are from."""
    turns = {column: [Turn(**turn) for turn in row[column]] for column in columns}
    marks = {}
    for span in spans:
        in_tools = span["column"] == "tools"
        turn = None if in_tools else turns[span["column"]][span["turn"] - 1]
        text = row["tools"] if in_tools else getattr(turn, span["field"])
        marks[text[span["start"] : span["end"]]] = f"[{span['kind'].upper()}]"
    # The longest first: what is found may be a part of something else that is.
    marks = {text: marks[text] for text in sorted(marks, key=lambda text: (-len(text), text))}
    masked: dict[str, Any] = {
        column: [
            asdict(replace(turn, name=_without(turn.name, marks)))
            for turn in masked_turns(turns[column], spans, column)
        ]
        for column in columns
    }
    # Nobody searches in media, but what is found elsewhere may stand there again.
    for name in ("tools", "media"):
        masked[name] = _text_without(row[name], marks)
    record = _without(json.loads(row["raw"]), marks)
    return {**masked, "raw": json.dumps(record, ensure_ascii=False)}


def _text_without(text: str, marks: Mapping[str, str]) -> str:
    """Return a JSON text, or any other, in which marks stand for texts."""
    try:
        value = json.loads(text)
    except ValueError:
        return str(_without(text, marks))
    masked = _without(value, marks)
    return text if masked == value else json.dumps(masked, ensure_ascii=False, sort_keys=True)


def _without(value: Any, marks: Mapping[str, str]) -> Any:  # noqa: ANN401  what JSON can hold
    """Return a record in which marks stand for texts, wherever these are."""
    if isinstance(value, dict):
        return {_without(name, marks): _without(part, marks) for name, part in value.items()}
    if isinstance(value, list):
        return [_without(part, marks) for part in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return marks.get(str(value), value)
    if isinstance(value, str):
        for text, mark in marks.items():
            value = value.replace(text, mark)
    return value


def spans_of_kinds(spans: Iterable[Span], settings: PersonalDataSettings) -> list[Span]:
    """Return the spans of the kinds that the policy is for."""
    return [span for span in spans if not settings.kinds or span["kind"] in settings.kinds]


def _in_words(spans: Sequence[Span]) -> str | None:
    """Return what was found, without what it says: marks stand in ledgers and on pages."""
    if not spans:
        return None
    counts = Counter(span["kind"] for span in spans)
    first = spans[0]
    turn = f", turn {first['turn']}, {first['field']}" if first["turn"] else ""
    return (
        f"{', '.join(f'{num} {kind}' for kind, num in sorted(counts.items()))}; the first is "
        f"{first['kind']} in {first['column']}{turn}, characters {first['start']} to "
        f"{first['end']}"
    )


def masked_turns(turns: Sequence[Turn], spans: Iterable[Span], column: str) -> tuple[Turn, ...]:
    """Return turns with the kind in place of each span, as ``[MAIL]``.

    Tool calls stay JSON: a number that is masked becomes a text.

    Args:
        turns: of one column of a sample.
        spans: of the sample, as measured; those of other columns are left aside.
        column: which one it is.
    """
    masked = list(turns)
    # From the end on, so that what is before stays in its place.
    for span in sorted(spans, key=lambda span: -span["start"]):
        if span["column"] == column:
            turn, field = masked[span["turn"] - 1], span["field"]
            text = _masked(getattr(turn, field), span, is_json=field == "tool_calls")
            masked[span["turn"] - 1] = replace(turn, **{field: text})
    return tuple(masked)


_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"')


def _masked(text: str, span: Span, *, is_json: bool) -> str:
    before, after = text[: span["start"]], text[span["end"] :]
    mark = f"[{span['kind'].upper()}]"
    if is_json and len(_QUOTE.findall(before)) % 2 == 0:
        mark = json.dumps(mark)
    return f"{before}{mark}{after}"


class _Kind(NamedTuple):
    """How a kind is found.

    Args:
        name: what the span is called.
        hint: a pattern without looking around, which texts without the kind seldom match.
        pattern: what is searched in texts with the hint; the group ``it`` is the span, if any.
        check: whether a match is the kind.
    """

    name: str
    hint: str
    pattern: re.Pattern[str]
    check: Callable[[re.Match[str]], bool]


def _spans_of(texts: pl.DataFrame) -> pl.DataFrame:
    """Return the spans in texts (see :func:`turn_texts`), in the order of texts; none overlap."""
    texts = texts.with_row_index("text_number")
    found: dict[int, list[tuple[int, int, str]]] = {}
    for kind in _KINDS:
        hinted = texts.filter(pl.col("text").str.contains(kind.hint))
        for number, text in hinted.select("text_number", "text").iter_rows():
            taken = found.setdefault(number, [])
            taken += [
                new for new in _matches(kind, text) if not any(_overlap(new, t) for t in taken)
            ]
    rows = [(number, *span) for number in sorted(found) for span in sorted(found[number])]
    schema = {"text_number": pl.UInt32, "start": pl.Int64, "end": pl.Int64, "kind": pl.String}
    spans = pl.DataFrame(rows, schema=schema, orient="row")
    return spans.join(texts, on="text_number", maintain_order="left")


def _overlap(one: tuple[int, int, str], other: tuple[int, int, str]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _matches(kind: _Kind, text: str) -> Iterator[tuple[int, int, str]]:
    for match in kind.pattern.finditer(text):
        if kind.check(match):
            group = "it" if "it" in kind.pattern.groupindex else 0
            yield match.start(group), match.end(group), kind.name


def _always(match: re.Match[str]) -> bool:
    return True


_RESERVED = re.compile(
    r"[@.](?:example\d?(?:\.[a-z]+)+|example|test|invalid|localhost|local)$", re.IGNORECASE
)
# What stands for the name of anybody, and the user of every repository.
_NO_NAMES = frozenset(["example", "user", "username", "you", "test", "name", "email", "git"])


def _is_mail(match: re.Match[str]) -> bool:
    local, _, domain = match[0].partition("@")
    return local.lower() not in _NO_NAMES and not _RESERVED.search(f"@{domain}")


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


_DATE = re.compile(r"\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}")


def _is_phone(match: re.Match[str]) -> bool:
    """Return whether a number may be called: of 7 to 15 digits, no date, and none with 555.

    555 is of films and of documentation, as 1234567890 is.
    """
    number = match.groupdict().get("it") or match[0]
    digits = _digits(number)
    of_america = digits.removeprefix("1")
    is_fiction = len(of_america) == 10 and "555" in (of_america[:3], of_america[3:6])
    is_fiction |= "1234567890" in digits or len(set(digits)) < 4
    return 7 <= len(digits) <= 15 and not is_fiction and not _DATE.fullmatch(number)


# Of the payment services' documentation.
_TEST_CARDS = frozenset(
    [
        "4111111111111111",
        "4242424242424242",
        "4012888888881881",
        "5555555555554444",
        "5105105105105100",
        "378282246310005",
        "371449635398431",
        "6011111111111117",
    ]
)


def _is_card(match: re.Match[str]) -> bool:
    digits = _digits(match[0])
    doubled = (int(d) * (1 + place % 2) for place, d in enumerate(reversed(digits)))
    is_luhn = sum(n // 10 + n % 10 for n in doubled) % 10 == 0
    return is_luhn and digits not in _TEST_CARDS and len(set(digits)) > 3


_TEST_IBANS = frozenset(["GB82WEST12345698765432", "DE89370400440532013000"])


def _is_iban(match: re.Match[str]) -> bool:
    iban = match[0].replace(" ", "")
    moved = "".join(str(int(character, 36)) for character in iban[4:] + iban[:4])
    return 15 <= len(iban) <= 34 and int(moved) % 97 == 1 and iban not in _TEST_IBANS


# Known to all, or made up.
_COMMON_IPS = frozenset(
    ["8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "1.2.3.4", "123.45.67.89"]
)
_VERSION = re.compile(r"(?:\bv|version|release|section|chapter|§)[ :=.]*$", re.IGNORECASE)
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")


def _is_ip(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if address.version == 6:
        return address.is_global and address in _GLOBAL_IPV6
    is_version = _VERSION.search(match.string, max(0, match.start() - 12), match.start())
    return address.is_global and match[0] not in _COMMON_IPS and not is_version


_PLACEHOLDER = re.compile(r"example|your|xxx|placeholder|\.\.\.|1234567|abcdef", re.IGNORECASE)


def _is_key(match: re.Match[str]) -> bool:
    """Return whether a key looks like chance, and is not said to be none."""
    return len(set(match["it"])) > 8 and not _PLACEHOLDER.search(match["it"])


def _is_mixed_key(match: re.Match[str]) -> bool:
    """Return whether it has letters and digits besides: what stands before it is in names, too."""
    key = match["it"]
    return _is_key(match) and bool(re.search(r"\d", key) and re.search("[A-Za-z]", key))


# Published on jwt.io.
_TEST_JWT = "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
_API_KEYS = r"""
    gh[pousr]_[A-Za-z0-9]{36,} | github_pat_[A-Za-z0-9_]{60,} | glpat-[\w-]{20,}
  | sk-(?:proj-|svcacct-|ant-)?[\w-]{32,} | hf_[A-Za-z0-9]{30,} | [sr]k_live_[A-Za-z0-9]{16,}
  | xox[abeoprs]-[\w-]{16,} | SG\.[\w-]{22}\.[\w-]{43} | npm_[A-Za-z0-9]{36} | pypi-[\w-]{50,}
  | \d{8,10}:AA[\w-]{33} | SK[0-9a-f]{32}
"""
_CLOUD_TOKENS = r"""
    (?:AKIA|ASIA)[A-Z2-7]{16} | AIza[\w-]{35} | ya29\.[\w-]{20,} | dop_v1_[0-9a-f]{64}
  | AccountKey=(?P<of_azure>[A-Za-z0-9+/]{86}==)
"""
_NAMED_KEY = r"(?i:api[_-]?key|secret|token|passwd|password)[\w-]{0,20}[\"']?\s*[:=]\s*[\"']"
"""What stands before a secret in code and settings."""
_KINDS = (
    _Kind(
        "private_key",
        "PRIVATE KEY-----",
        re.compile(
            r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[A-Za-z0-9+/=\s\\:,.-]{64,}?"
            r"(?:-----END (?:[A-Z]+ )*PRIVATE KEY-----|\Z)"
        ),
        _always,
    ),
    _Kind(
        "jwt",
        r"eyJ[\w-]{8,}\.eyJ",
        re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}"),
        lambda match: not match[0].endswith(_TEST_JWT),
    ),
    _Kind(
        "cloud_token",
        r"AKIA|ASIA|AIza|ya29\.|dop_v1_|AccountKey=",
        re.compile(rf"(?<![A-Za-z0-9])(?P<it>{_CLOUD_TOKENS})(?![A-Za-z0-9])", re.VERBOSE),
        _is_key,
    ),
    _Kind(
        "api_key",
        r"gh[pousr]_|github_pat_|glpat-|sk-|hf_|k_live_|xox|SG\.|npm_|pypi-|:AA|SK[0-9a-f]{32}",
        re.compile(rf"(?<![A-Za-z0-9])(?P<it>{_API_KEYS})(?![A-Za-z0-9])", re.VERBOSE),
        _is_mixed_key,
    ),
    _Kind(
        "api_key",
        _NAMED_KEY + r"[\w/+.=-]{20,}",
        re.compile(_NAMED_KEY + r"(?P<it>[\w/+.=-]{20,})(?=[\"'])"),
        _is_mixed_key,
    ),
    _Kind(
        "mail",
        r"@[A-Za-z0-9]",
        re.compile(
            r"(?<![\w.+%-])[A-Za-z0-9_][\w.+%'-]{0,63}@(?:[A-Za-z0-9][A-Za-z0-9-]*\.)+"
            r"[A-Za-z]{2,24}(?![A-Za-z0-9-])"
        ),
        _is_mail,
    ),
    _Kind(
        "iban",
        r"\b[A-Z]{2}\d{2} ?[A-Z0-9]{4}",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        _is_iban,
    ),
    _Kind(
        "card",
        r"[2-6]\d{3}[ -]?\d{4}[ -]?\d{4}|3\d{3}[ -]?\d{6}[ -]?\d{5}",
        re.compile(
            r"(?<![\w.+-])(?:[2-6]\d{3}(?P<gap>[ -]?)\d{4}(?P=gap)\d{4}(?P=gap)\d{4}"
            r"|3[47]\d{2}(?P<other>[ -]?)\d{6}(?P=other)\d{5})(?![\w-]|\.\d)"
        ),
        _is_card,
    ),
    _Kind(
        "ip",
        r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d|[0-9a-fA-F]{1,4}:[0-9a-fA-F:]*:[0-9a-fA-F]",
        re.compile(
            r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"
            r"|[23][0-9a-fA-F]{3}:[0-9a-fA-F:]*:[0-9a-fA-F]{1,4}(?![\w:]))"
        ),
        _is_ip,
    ),
    _Kind(
        "phone",
        r"\+\d[\d ().-]{6,}\d|\d{3}\)?[ .-]\d{3}[ .-]\d{4}",
        re.compile(
            r"(?<![\w.+/=-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,6}|(?:1[ .-])?"
            r"(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4})(?![\w-]|[. ]\d)"
        ),
        _is_phone,
    ),
    _Kind(
        "phone",
        r"(?i)(?:phone|tel|call|mobile|cell|fax|whatsapp|sms)[\W_]",
        re.compile(
            r"(?i:\b(?:(?:tele)?phone|tel|call|mobile|cell|fax|whatsapp|sms)\b)[^\d\n]{0,24}?"
            r"(?P<it>(?<![\w.+-])\(?0\d{1,4}\)?(?:[ /.-]?\d{2,8}){1,5})(?![\w-]|\.\d)"
        ),
        _is_phone,
    ),
)


SIGNAL = PersonalData()
