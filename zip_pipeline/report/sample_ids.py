"""Sample ids as people type them: whole, or their first digits."""

ID_CHARACTERS = 32
MIN_PREFIX_CHARACTERS = 6


def checked_prefix(sample_id: str) -> str:
    """Return an id or its first digits in lower case.

    Raises:
        ValueError: other characters, or too few or too many of them.
    """
    prefix = sample_id.strip().lower()
    is_hexadecimal = not prefix.strip("0123456789abcdef")
    if not is_hexadecimal or not MIN_PREFIX_CHARACTERS <= len(prefix) <= ID_CHARACTERS:
        raise ValueError(
            f"sample id: got {sample_id!r}; allowed are {ID_CHARACTERS} hexadecimal digits, or "
            f"the first {MIN_PREFIX_CHARACTERS} and more; a ledger's column sample_id has them"
        )
    return prefix


def only_one(names: set[str], asked: str, where: str) -> str:
    """Return the only one of the ids that were found for what was asked.

    Raises:
        ValueError: there is none, or more than one; ``where`` starts the message.
    """
    if len(names) == 1:
        return next(iter(names))
    if not names:
        raise ValueError(f"{where}no sample {asked}; a ledger's column sample_id has the known ids")
    some = ", ".join(sorted(names)[:3])
    raise ValueError(
        f"{where}{len(names)} samples start with {asked} ({some}, …); give more digits"
    )
