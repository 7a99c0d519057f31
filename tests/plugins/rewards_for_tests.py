"""A module with a reward function, to be named by its dotted path."""

LIMIT = 3


def brevity(completions, **kwargs):
    """The shorter the better."""
    return [-float(len(text)) for text in completions]


def number(completions, **kwargs):
    """The number that the answer is; None for an empty answer."""
    return [float(text) if text else None for text in completions]


def first(completions, **kwargs):
    """The first of two numbers in the answer; None for a dash."""
    return [None if text.split()[0] == "-" else float(text.split()[0]) for text in completions]


def second(completions, **kwargs):
    """The second of them."""
    return [None if text.split()[1] == "-" else float(text.split()[1]) for text in completions]
