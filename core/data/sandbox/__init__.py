"""The sandbox: a small generated world of requests, graded answers, annotators and a judge that knows the truth.

See docs/sandbox.md. Pure Python, no file, no network: everything follows from a seed.
"""

from core.data.sandbox.annotators import TASTES, Annotator
from core.data.sandbox.families import FAMILIES
from core.data.sandbox.judge import gold, gold_parts
from core.data.sandbox.records import Options, records, split_of
from core.data.sandbox.styles import CONTENTS, MANNERS, make

__all__ = [
    "CONTENTS",
    "FAMILIES",
    "MANNERS",
    "TASTES",
    "Annotator",
    "Options",
    "gold",
    "gold_parts",
    "make",
    "records",
    "split_of",
]
