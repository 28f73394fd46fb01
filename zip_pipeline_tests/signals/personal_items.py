"""Personal data and secrets that nobody has: 300 in 20 shapes, the same ones each time."""

import base64
import ipaddress
import json
import random
import string
from collections.abc import Callable
from typing import NamedTuple


class Item(NamedTuple):
    """A text and what in it is personal."""

    shape: str
    kind: str
    text: str
    secret: str


_NAMES = ["anna", "jo.miller", "k_schmidt", "li.wei", "o'neill", "pedro+news", "s.ivanova88", "x7"]
_HOSTS = ["posteo.de", "mail.uni-kiel.de", "gmail.com", "corp.acme-tools.co.uk", "proton.me"]
_LETTERS, _DIGITS = string.ascii_letters, string.digits


def _some(rng: random.Random, alphabet: str, num: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(num))


def _mail(rng: random.Random) -> str:
    return f"{rng.choice(_NAMES)}@{rng.choice(_HOSTS)}"


def _card(rng: random.Random, start: str, num: int) -> str:
    digits = start + _some(rng, _DIGITS, num - len(start) - 1)
    doubled = [int(d) * (2 - place % 2) for place, d in enumerate(reversed(digits))]
    return digits + str(-sum(n // 10 + n % 10 for n in doubled) % 10)


def _iban(country: str, account: str) -> str:
    moved = "".join(str(int(c, 36)) for c in f"{account}{country}00")
    return f"{country}{98 - int(moved) % 97:02d}{account}"


def _grouped(text: str, sizes: list[int], between: str) -> str:
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    return between.join(
        text[e - s : e] for e, s in zip(ends, sizes, strict=True) if text[e - s : e]
    )


def _us(rng: random.Random, form: str) -> str:
    area = rng.choice(["212", "415", "312", "617", "206"])
    return form.format(area, f"{rng.randint(220, 554)}", _some(rng, _DIGITS, 4))


def _international(rng: random.Random) -> str:
    return rng.choice(
        [
            f"+49 30 {rng.randint(2000000, 8999999)}",
            f"+44 20 7{_some(rng, _DIGITS, 3)} {_some(rng, _DIGITS, 4)}",
            f"+33 6 {_grouped(_some(rng, '12345678', 8), [2, 2, 2, 2], ' ')}",
            f"+4917{_some(rng, '12346789', 9)}",
        ]
    )


def _national(rng: random.Random) -> str:
    return rng.choice(
        [
            f"030 {rng.randint(2000000, 8999999)}",
            f"0171/{rng.randint(2000000, 8999999)}",
            f"06 {_grouped(_some(rng, '12345678', 8), [2, 2, 2, 2], ' ')}",
        ]
    )


def _public_ip(rng: random.Random) -> str:
    while not (found := ipaddress.ip_address(rng.getrandbits(32) | 1 << 29)).is_global:
        pass
    return str(found)


def _ipv6(rng: random.Random) -> str:
    return str(ipaddress.IPv6Address(0x2A02 << 112 | rng.getrandbits(80)))


def _aws(rng: random.Random) -> str:
    return f"AKIA{_some(rng, string.ascii_uppercase + '234567', 16)}"


def _jwt(rng: random.Random) -> str:
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": _some(rng, _DIGITS, 8), "name": "Anna"}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    signature = base64.urlsafe_b64encode(rng.randbytes(32)).decode()
    return ".".join(part.rstrip("=") for part in [*encoded, signature])


def _pem(rng: random.Random) -> str:
    kind = rng.choice(["", "RSA ", "EC ", "OPENSSH "])
    body = base64.encodebytes(rng.randbytes(rng.randint(120, 900))).decode()
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body}-----END {kind}PRIVATE KEY-----"


def _github(rng: random.Random) -> str:
    short = f"gh{rng.choice('pousr')}_{_some(rng, _LETTERS + _DIGITS, 36)}"
    start, end = (_some(rng, _LETTERS + _DIGITS, num) for num in (22, 59))
    return rng.choice([short, f"github_pat_{start}_{end}"])


def _model_key(rng: random.Random) -> str:
    start = rng.choice(["sk-", "sk-proj-", "sk-ant-api03-", "hf_"])
    return start + _some(rng, _LETTERS + _DIGITS, 48)


def _cloud(rng: random.Random) -> str:
    return rng.choice(
        [
            f"AIza{_some(rng, _LETTERS + _DIGITS + '_-', 34)}k",
            f"ya29.{_some(rng, _LETTERS + _DIGITS + '_-', 60)}k",
            f"dop_v1_{_some(rng, 'abcdef' + _DIGITS, 64)}",
        ]
    )


def _service(rng: random.Random) -> str:
    return rng.choice(
        [
            f"xoxb-{_some(rng, _DIGITS, 12)}-{_some(rng, _LETTERS + _DIGITS, 24)}",
            f"sk_live_{_some(rng, _LETTERS + _DIGITS, 24)}",
            f"glpat-{_some(rng, _LETTERS + _DIGITS, 20)}",
        ]
    )


_PLAIN = ["You can use {} for it.", "Well: {}, and then {{nothing}} more", '{{"value": "{}"}}']
_PLAIN += ["{}", "value = '{}'  # as told\nprint(value)", "It is\n\n- {}\n- other"]
_ALOUD = ["Call me: {}.", "Phone {}", '{{"phone": "{}"}}', "Tel. {}, evenings", "mobile: {} (Anna)"]
_ASKED = ["My card is {}.", "{} is what I paid with", '{{"card": "{}"}}', "Visa {}, valid to 11/29"]
SHAPES: dict[str, tuple[str, list[str], Callable[[random.Random], str]]] = {
    "mail": ("mail", _PLAIN, _mail),
    "mail in brackets": ("mail", ["Anna <{}> wrote", "[{0}](mailto:x)", "From:{};"], _mail),
    "mail in capitals": ("mail", _PLAIN, lambda rng: _mail(rng).upper()),
    "US phone in brackets": ("phone", _ALOUD, lambda rng: _us(rng, "({}) {}-{}")),
    "US phone": ("phone", [*_ALOUD, *_PLAIN], lambda rng: _us(rng, "{}-{}-{}")),
    "international phone": ("phone", [*_ALOUD, *_PLAIN], _international),
    "national phone": ("phone", _ALOUD, _national),
    "card in groups": (
        "card", _ASKED, lambda rng: _grouped(_card(rng, "4", 16), [4] * 4, rng.choice(" -"))
    ),
    "card": ("card", _ASKED, lambda rng: _card(rng, rng.choice(["53", "4", "6011"]), 16)),
    "card of 15 digits": (
        "card", _ASKED, lambda rng: _grouped(_card(rng, "37", 15), [4, 6, 5], rng.choice(["", " "]))
    ),
    "IBAN in groups": (
        "iban", _PLAIN, lambda rng: _grouped(_iban("DE", _some(rng, _DIGITS, 18)), [4] * 6, " ")
    ),
    "IBAN": ("iban", _PLAIN, lambda rng: _iban("GB", f"NWBK{_some(rng, _DIGITS, 14)}")),
    "IPv4": ("ip", _PLAIN, _public_ip),
    "IPv6": ("ip", _PLAIN, _ipv6),
    "AWS key": ("cloud_token", _PLAIN, _aws),
    "GitHub token": ("api_key", _PLAIN, _github),
    "key of a model": ("api_key", _PLAIN, _model_key),
    "cloud token": ("cloud_token", _PLAIN, _cloud),
    "JWT": ("jwt", [*_PLAIN, "Authorization: Bearer {}"], _jwt),
    "PEM": ("private_key", ["{}", "key:\n{}\n", "Use this one:\n\n```\n{}\n```"], _pem),
}  # fmt: skip


def personal_items(seed: int = 14) -> list[Item]:
    """Return 15 items of each shape, the same ones for a seed."""
    rng = random.Random(seed)
    items = []
    for shape, (kind, contexts, make) in SHAPES.items():
        for number in range(15):
            is_service = shape == "key of a model" and number % 3 == 0
            secret = _service(rng) if is_service else make(rng)
            text = rng.choice(contexts).replace("{0}", "{}").format(secret)
            items.append(Item(shape, kind, text, secret))
    return items
