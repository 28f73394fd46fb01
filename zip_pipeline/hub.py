"""The Hugging Face hub: whether it answers at all, asked once and for a few seconds."""

import http.client
import os
import re
import ssl
import threading
import urllib.error
import urllib.request

_SECONDS = 5.0
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def hub_endpoint() -> str:
    """Return the address of the hub, as its library takes it."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def hub_answers() -> bool:
    """Return whether the hub answers within seconds; its library would try for minutes.

    True as well where the library is told not to ask it.
    """
    if any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in _OFFLINE):
        return True
    found: list[bool] = []
    # On a clock of its own: looking up a name, and headers that trickle, keep to no timeout.
    thread = threading.Thread(target=lambda: found.append(_answers()), daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return found == [True]


def _answers() -> bool:
    try:
        request = urllib.request.Request(without_secrets(hub_endpoint()), method="HEAD")
        urllib.request.urlopen(request, timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # The library may know certificates that we do not.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def no_answer() -> str:
    """Return in words that the hub does not answer."""
    return (
        f"the hub does not answer at {without_secrets(hub_endpoint())}, and the files are not in "
        "its cache here; check the network and HF_ENDPOINT"
    )


_QUERY = re.compile(r"\?[^\s'\"]*=[^\s'\"]*")
_SECRET = re.compile(r"(?<=://)[^/\s'\"]*@|(?i:bearer) \S+|\bhf_\w{8,}")


def without_secrets(words: str) -> str:
    """Return words of a library without passwords and queries of addresses, and without tokens."""
    return _SECRET.sub("", _QUERY.sub("?…", words))
