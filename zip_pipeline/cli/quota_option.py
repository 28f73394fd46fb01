"""The option ``--quota SOURCE=MAX``."""


def parse_quota(text: str) -> tuple[str, tuple[float | None, float | None]]:
    """Return source, least and largest share of ``SOURCE=MAX`` or ``SOURCE=MIN:MAX``.

    Raises:
        ValueError: any other form.
    """
    # Names of sources may hold "=" and ":", shares never do.
    source, _, shares = text.rpartition("=")
    least, colon, largest = shares.rpartition(":")
    try:
        limits = (_share(least), _share(largest))
    except ValueError:
        limits = (None, None)
    if not source or limits == (None, None) or (not colon and limits[1] is None):
        raise ValueError(
            f"--quota: got {text!r}; allowed are SOURCE=MAX and SOURCE=MIN:MAX with shares of "
            "the budget as 0.2 or 20%, for example --quota gsm8k=20%"
        )
    return source, limits


def _share(text: str) -> float | None:
    if not text:
        return None
    return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
