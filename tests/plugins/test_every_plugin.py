"""Every plugin that is installed keeps the contract: ours, and those of other packages where there are some."""

from __future__ import annotations

import pytest

from core import registry, run
from core.errors import PluginError
from core.testing import Check, plugin_checks

# What a plugin needs before it can be built.
OPTIONS = {
    "regex": {"pattern": "Paris"},
    "function": {"path": "tests.trials:token_sum"},
    "weighted": {"parts": {"length": 1, "format": {"weight": 2}}},
    "ensemble": {"parts": ["length", {"name": "length", "unit": "words"}]},
    "normalised": {"of": "length"},
    "piecewise": {"safety": "length", "helpfulness": {"name": "length", "unit": "words"}},
}
# Behaviour is checked in tests of their own, with what they need: a model, a server, rows of the sandbox.
ELSEWHERE = {"learned": "reward.path", "judge": "reward.base_url", "gold": "the columns task", "piecewise": "the columns"}
INSTALLED = [(e.kind, e.name) for e in registry.entries() if e.kind != "conf"]


@pytest.mark.parametrize(("kind", "name"), INSTALLED)
def test_it_keeps_the_contract(kind: str, name: str) -> None:
    checks = list(plugin_checks(kind, name, OPTIONS.get(name)))
    remarks = [text for text in (check.run() for check in checks) if text]
    if name in ELSEWHERE:
        assert all("not checked" in text and ELSEWHERE[name] in text for text in remarks), remarks
    else:
        assert not remarks
        assert len(checks) >= (20 if kind == "objective" else 12)


def test_the_built_in_ones_are_among_them() -> None:
    assert {("objective", "sft"), ("objective", "ppo"), ("reward", "length"), ("reward", "judge")} <= set(INSTALLED)


# -- --check all ----------------------------------------------------------------------------------------------------------


def failing() -> None:
    raise AssertionError("it does not hold.")


def checks_of(kind: str, name: str, options: object = None, prefer: object = None) -> list[Check]:
    if name == "gold":
        raise PluginError('reward "gold" is broken: importing it failed.')
    held = Check("this holds", lambda: None)
    others = {"length": [Check("that does not", failing)], "judge": [Check("asked", lambda: "not checked: a server\nmore")]}
    return [held, *others.get(name, [])]


def test_check_all_looks_at_every_plugin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ACCORDANT_PLUGINS", "off")
    monkeypatch.setattr("core.testing.plugin_checks", checks_of)
    assert run.main(["--check", "all"]) == 1
    said = capsys.readouterr().out
    ours = [(e.kind, e.name) for e in registry.entries() if e.kind != "conf"]  # others are switched off
    for kind, name in ours:
        assert f'{kind} "{name}"' in said
    assert 'ok      objective "sft" (accordant 0.1.0): 1 of 1 checks' in said
    assert 'FAILED  reward "length" (accordant 0.1.0): 1 of 2 checks\n  FAILED  that does not\n' in said
    assert "          it does not hold.\n" in said
    assert "2 of 2 checks\n  ok      asked\n          not checked: a server\n" in said
    assert 'FAILED  reward "gold": reward "gold" is broken' in said
    assert said.endswith(f"2 of {len(ours)} plugins failed.\n")


def test_check_all_ends_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ACCORDANT_PLUGINS", "off")
    monkeypatch.setattr("core.testing.plugin_checks", lambda *_: [Check("this holds", lambda: None)])
    assert run.main(["--check", "all"]) == 0
    assert "plugins keep the contract." in capsys.readouterr().out
    assert run.main(["--check", "all", "target=20"]) == 2
    assert "--check all takes no options, got target." in capsys.readouterr().err
