"""The one error users see: what was wrong, with the value, and what to do about it."""


class InputError(ValueError):
    """A user's file or value can't be used. The message is one line and says what to do; the CLI exits with 2."""
