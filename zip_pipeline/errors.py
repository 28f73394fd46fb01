"""What a person can mend."""


class UserError(ValueError):
    """An error that a person can mend, with the remedy in its message.

    The command line shows it as one line. Any other exception is a bug and shows its traceback.
    """
