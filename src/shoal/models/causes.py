"""Someone else's exception in one sentence, for a message of our own that says what to do."""


def cause(error: BaseException) -> str:
    """The type of an exception and the first line of its message.

    Args:
        error: what was raised.

    Returns:
        `TypeError: dot_general requires ...`, without a full stop; the type alone where there is no message.
    """
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *(line.strip().rstrip(".") for line in lines[:1])])
