"""A module with a reward function, to be named by its dotted path."""

LIMIT = 3


def brevity(completions, **kwargs):
    """The shorter the better."""
    return [-float(len(text)) for text in completions]
