"""Why rows are rejected: a fixed set of countable reasons, and the table that keeps the rows."""

import polars as pl

REASONS: dict[str, str] = {
    # Files that cannot be read, or not to their end; counted as one row each. Where the system
    # keeps us from reading, the drop fails instead: next time it may not.
    "unsupported_file": "the file name has none of the supported extensions",
    "truncated_archive": "the compressed file ends too early",
    "corrupt_archive": "the compressed file is damaged or not of the named kind",
    "decompression_bomb": "the file expands beyond the limits",
    "corrupt_table": "the Parquet or CSV file is damaged",
    "unexpected_content": "the file or row holds something that no reader here expects",
    # Rows that cannot be parsed.
    "bad_encoding": "the bytes are not UTF-8, or the text holds half a surrogate pair",
    "row_too_long": "the row is longer than the limit; only its beginning is kept",
    "nested_too_deep": "the row nests lists or objects deeper than the limit",
    "invalid_json": "the row is not valid JSON",
    "invalid_csv": "the row does not fit the CSV header or its quotes do not match",
    "not_an_object": "the row is JSON but no object with named fields",
    "mixed_object": "the object has several lists of rows, or rows and other content",
    # Rows that are no sample of their format.
    "unknown_format": "the fields match no known format of the stage",
    "missing_field": "a field that the format needs is absent",
    "wrong_type": "a field holds another type than the format allows",
    "unknown_role": "a turn has a role that is no known name of one",
    "unsupported_content": "a turn holds an image or another part that is no text",
    "no_user_turn": "no turn of the user says anything",
    "no_final_assistant": "the last turn does not come from the assistant",
    "empty_final_assistant": "the assistant's last turn is blank and calls no tool",
    "not_a_dialogue": "the text is not in Human: / Assistant: form",
    "no_common_prompt": "chosen and rejected do not start with the same turns",
    "no_preference": "the row does not say which response is preferred",
    "tied_scores": "all responses have the same score",
    "contradicting_scores": "the chosen response has the lower score",
    "equal_responses": "chosen and rejected are the same",
}

QUARANTINE_SCHEMA = pl.Schema(
    {
        "source_file": pl.String,
        "source_row": pl.Int64,
        "reason": pl.String,
        "detail": pl.String,
        "raw": pl.String,
    }
)


DATA_ERRORS = (
    ValueError,
    ArithmeticError,
    RecursionError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
"""What odd data make libraries raise; anything else is a mistake of ours, or the system's."""


class RejectionError(Exception):
    """A row, or the rest of a file, that goes to quarantine.

    ``raw`` is what was read of it, where the place that raises knows.
    """

    def __init__(self, reason: str, detail: str = "", raw: str = "") -> None:
        assert reason in REASONS, f"unknown quarantine reason {reason!r}"
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = printable(detail)
        self.raw = raw


def unexpected(error: BaseException) -> RejectionError:
    """Return the rejection of what made a library raise one of ``DATA_ERRORS``."""
    return RejectionError("unexpected_content", f"{type(error).__name__}: {error}")


def printable(text: str) -> str:
    """Return the text with half surrogate pairs replaced, so that it can be stored as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
