"""The report of a run: one self-contained HTML page and the same facts as JSON, made from the run folder alone.

Works for runs that have ended, that still run, and that crashed. The page loads nothing, from the network or from disk:
its policy (a CSP meta tag) allows only the style and the script that are written into it. Text of models is data there.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template, select_autoescape
from markupsafe import Markup

from core.atomic import write_atomic
from core.errors import ConfigError
from core.report.changes import Change, changes, headline, show
from core.report.charts import HEIGHT, WIDTH, chart_groups
from core.report.facts import read_facts
from core.report.kl_section import section as kl_section
from core.report.policies import section as policies_section
from core.report.preferences import section
from core.runfolder import RUN
from core.text import visible

__all__ = ["Change", "build_report", "changes", "headline", "show"]


def build_report(folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Writes report.html and report.json into a run folder and returns their paths.

    Raises:
        ConfigError: the folder holds no run.
    """
    path = Path(folder)
    if not (path / RUN).is_file():
        raise ConfigError(f"{path} holds no run (no {RUN}).", "Give the path of a run folder.")
    facts = read_facts(path)
    html, data = path / "report.html", path / "report.json"
    write_atomic(data, json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_atomic(html, render(facts))
    return html, data


def render(facts: dict[str, Any]) -> str:
    """The page for facts as `read_facts` gives them."""
    style, script = _asset("report.css"), _asset("report.js")
    return _template().render(
        facts,
        reward=section(facts["preferences"]),
        pressed=kl_section(facts["overoptimisation"]),
        compared=policies_section(facts["policies"]),
        groups=chart_groups(facts["series"], facts["likelihood"]),
        width=WIDTH,
        height=HEIGHT,
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; "
        "form-action 'none'",
        # Ours and constant, so they may stand in the page as they are.
        style=Markup(style),
        script=Markup(script),
        score_names=_score_names(facts["samples"], facts["answers"]),
    )


@functools.cache
def _template() -> Template:
    """Compiled once: that takes longer than a page."""
    environment = Environment(autoescape=select_autoescape(default=True, default_for_string=True), trim_blocks=True)
    environment.lstrip_blocks = True
    environment.filters.update(show=show, visible=visible, label=_label, unbroken=_unbroken)
    return environment.from_string(_asset("report.html.jinja"))


def _score_names(samples: list[dict[str, Any]], answers: list[dict[str, Any]]) -> list[str]:
    sides = [sample[side] for sample in samples for side in ("before", "after") if sample[side]]
    sides += [one for sample in answers for given in sample["answers"].values() for one in given]
    return sorted({name for side in sides for name in side["scores"]})


def _label(key: Any) -> str:
    return str(key).replace("_", " ")


def _unbroken(text: str) -> str:
    """A number and its % stay on one line."""
    return text.replace(" %", "\u00a0%")


def _asset(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
