"""`--list` and `--check`: what is installed, and does it keep the contract. Imports no torch by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import yaml  # type: ignore[import-untyped]

from core import registry
from core.errors import ConfigError, PluginError, UserError
from core.registry import Entry

if TYPE_CHECKING:
    from core.testing import Check


def list_plugins(arguments: Sequence[str]) -> int:
    """Prints a line for each plugin; with `--load` imports each and adds its API number, or what is broken."""
    unknown = [argument for argument in arguments if argument not in ("--list", "--load")]
    if unknown:
        raise ConfigError(f"--list does not take {unknown[0]}.", "Use --list or --list --load.")
    load = "--load" in arguments
    found = [entry for entry in registry.entries() if entry.kind in ("objective", "reward")]
    header = ["KIND", "NAME", "DISTRIBUTION", "VERSION", *(["API"] if load else []), "WHAT IT IS"]
    rows, broken = [header], []
    for entry in found:
        api, text = "", registry.first_line(entry)
        if load:
            try:
                api = str(registry.load(entry).api_version)
            except PluginError as error:
                api, text = "-", "BROKEN, see below"
                broken.append(str(error))
        rows.append([entry.kind, entry.name, entry.distribution, entry.version, *([api] if load else []), text])
    for row in rows:
        widths = [max(len(other[i]) for other in rows) for i in range(len(row) - 1)]
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip())
    for text in (*clashes(found), *broken):
        print(f"\n{text}")
    return 0


def clashes(found: Sequence[Entry]) -> list[str]:
    """A sentence for each name that two distributions offer."""
    out = []
    for kind, name in dict.fromkeys((entry.kind, entry.name) for entry in found):
        if len([entry for entry in found if (entry.kind, entry.name) == (kind, name)]) > 1:
            try:
                registry.find(kind, name)
            except PluginError as error:
                out.append(str(error))
    return out


def check_plugin(arguments: Sequence[str]) -> int:
    """`--check NAME [key=value ...]`, or `--check all`: runs the conformance checks. 0 = all hold, 1 = some do not."""
    words = [argument for argument in arguments if argument != "--check"]
    names = [word for word in words if "=" not in word]
    if len(names) != 1:
        raise ConfigError(
            f"--check takes one plugin's name, got {len(names)}.",
            "For example: --check length, or --check length target=20, or --check all.",
        )
    options = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words if "=" in word)}
    prefer = {
        key.removeprefix("plugins.prefer."): options.pop(key) for key in list(options) if key.startswith("plugins.prefer.")
    }
    if names == ["all"]:
        return _check_all(options, prefer)
    kinds = dict.fromkeys(e.kind for e in registry.entries() if e.name == names[0] and e.kind in ("objective", "reward"))
    if not kinds:
        everything = [entry for entry in registry.entries() if entry.kind != "conf"]
        raise registry.unknown("plugin", names[0], everything)
    from core.testing import plugin_checks

    failures = 0
    for kind in kinds:
        print(registry.find(kind, names[0], prefer).label)
        for check in plugin_checks(kind, names[0], options, prefer):
            kept, text = _outcome(check)
            failures += not kept
            _say(check, kept, text)
    print("Keeps the contract." if not failures else f"{failures} of the checks failed.")
    return 1 if failures else 0


def _check_all(options: Mapping[str, object], prefer: Mapping[str, str]) -> int:
    """Every installed plugin with its defaults: a line for each, and more where there is something to say."""
    if options:
        raise ConfigError(f"--check all takes no options, got {', '.join(options)}.", "Give them with one plugin's name.")
    from core.testing import plugin_checks

    found = dict.fromkeys((entry.kind, entry.name) for entry in registry.entries() if entry.kind in ("objective", "reward"))
    failed = 0
    for kind, name in found:
        try:
            label = registry.find(kind, name, prefer).label
            outcomes = [(check, *_outcome(check)) for check in plugin_checks(kind, name, None, prefer)]
        except PluginError as error:  # broken, or offered twice
            print(f'FAILED  {kind} "{name}": {error}')
            failed += 1
            continue
        kept = sum(right for _, right, _ in outcomes)
        print(f"{'ok    ' if kept == len(outcomes) else 'FAILED'}  {label}: {kept} of {len(outcomes)} checks", flush=True)
        failed += kept < len(outcomes)
        for check, right, text in outcomes:
            if text or not right:
                _say(check, right, text and text.splitlines()[0])
    print(f"All {len(found)} plugins keep the contract." if not failed else f"{failed} of {len(found)} plugins failed.")
    return 1 if failed else 0


def _say(check: Check, kept: bool, text: str | None) -> None:
    print(f"  {'ok    ' if kept else 'FAILED'}  {check.name}")
    if text:
        print(f"          {text}")


def _outcome(check: Check) -> tuple[bool, str | None]:
    """(kept, what to say)."""
    try:
        return True, check.run()
    except (AssertionError, UserError) as error:
        return False, str(error)
