"""Where policies are, what they are called, and what they started from. Reads small files, imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from core.errors import ConfigError
from core.runfolder import CONFIG, RUN, read_json
from core.settings import Evaluate

REFERENCE = "reference"
"""The label of the policy that KL is measured from, where it has no other place in the evaluation."""
POCKET = "pocket"
"""Stands for the path of the pocket model, which may have to be made first."""
_ROLES = ("policy", "reward", "value")


@dataclass(frozen=True)
class Place:
    """A policy of an evaluation.

    Attributes:
        label: what tables call it.
        path: a folder in the Hugging Face layout, a hub id, or `POCKET`.
        role: the one under test, one that it is held against, or the reference.
    """

    label: str
    path: str
    role: str


def places(options: Evaluate, sandbox: bool) -> tuple[list[Place], str]:
    """The policies of an evaluation, the one under test first, the reference last; and a sentence on the reference.

    Raises:
        ConfigError: something that is no policy, or two of one label.
    """
    given = [_path_and_label("evaluate.policy", options.policy)]
    against = () if options.against is None else options.against
    if isinstance(against, (str, Mapping)):
        against = [against]
    if not isinstance(against, Sequence):
        raise ConfigError(f"evaluate.against is {against!r}; expected paths of policies.", _EXAMPLE)
    given += [_path_and_label("evaluate.against", item) for item in against]
    labels = _labelled(given)
    paths = [path for path, _ in given]
    found = [Place(label, path, "against") for label, path in zip(labels, paths, strict=True)]
    found[0] = replace(found[0], role="policy")
    path, said = _reference(options, given[0][0], sandbox)
    if path is None:
        return found, said
    same = next((place for place in found if _same(place.path, path)), None)
    if same is not None and same.role == "policy":
        return found, f"{same.path} is what the policies would be held against: there is no KL and no win rate over itself."
    rest = [place for place in found if place is not same]
    return [*rest, Place(REFERENCE if same is None else same.label, path, "reference")], said


_EXAMPLE = "For example evaluate.against=[runs/other/policy], or evaluate.against=[{path: org/name, label: other}]."


def _path_and_label(key: str, given: Any) -> tuple[str, str | None]:
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - {"path", "label"})
        path, label = given.get("path"), given.get("label")
        if unknown or not isinstance(path, str) or not (label is None or (isinstance(label, str) and label)):
            raise ConfigError(f"{key} is {dict(given)}; expected a path, or a map of path and label.", _EXAMPLE)
        return checked_path(key, path), label
    if not isinstance(given, str) or not given:
        raise ConfigError(f"{key} holds {given!r}; expected the path of a policy, or a map of path and label.", _EXAMPLE)
    return checked_path(key, given), None


def checked_path(key: str, path: str) -> str:
    """The path, where it may be that of a causal language model; a hub id is not looked up.

    Raises:
        ConfigError: no such folder, a run folder, a reward model, or a folder without a model.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        inside = folder.parent.is_dir() and folder.parent.name
        if path != POCKET and (path.startswith((".", "/", "~")) or path.count("/") > 1 or inside):
            raise ConfigError(f"{key}={path}: there is no such folder.", _made_nearby(folder))
        return path
    if (folder / "adapter_config.json").is_file():
        kind = str(_json(folder / "adapter_config.json").get("task_type", ""))
        _refuse_other_models(key, path, kind == "SEQ_CLS")
        return path
    if (folder / "config.json").is_file():
        classes = [str(name) for name in _json(folder / "config.json").get("architectures") or ()]
        _refuse_other_models(key, path, bool(classes) and all("ForSequenceClassification" in name for name in classes))
        return path
    if (folder / RUN).is_file():
        made = [str(Path(path) / role) for role in _ROLES if (folder / role).is_dir()]
        hint = f"Give the model in it: {' or '.join(made)}." if made else "It has made no model; resume it, or take another."
        raise ConfigError(f"{key}={path} is a run folder and not a policy.", hint)
    raise ConfigError(
        f"{key}={path} holds no model: it has no config.json.", "Give the folder policy of a run, or a hub id."
    )


def _refuse_other_models(key: str, path: str, scorer: bool) -> None:
    if scorer:
        raise ConfigError(
            f"{key}={path} is a reward model, which answers nothing.",
            "To score by it: reward=learned reward.path=... . To evaluate it: core.evaluate reward=learned on pairs.",
        )


def _made_nearby(folder: Path) -> str:
    """What there is in its place."""
    run = folder.parent
    if (run / RUN).is_file():
        made = [str(run / role) for role in _ROLES if (run / role).is_dir()]
        return f"That run has made {' and '.join(made)}." if made else "That run has made no model: it did not end well."
    return "Give a folder that exists, as a run leaves it (runs/.../policy), or a hub id such as org/name."


# -- labels ------------------------------------------------------------------------------------------------------------


def _labelled(given: Sequence[tuple[str, str | None]]) -> list[str]:
    """The labels that are given, else the shortest ends of the paths that tell them apart."""
    chosen = {label for _, label in given if label is not None}
    labels = []
    for i, (path, label) in enumerate(given):
        others = [_parts(other) for k, (other, named) in enumerate(given) if k != i and named is None]
        labels.append(label or _shortest(_parts(path), others, chosen))
    for i, label in enumerate(labels):
        if label in labels[:i] or label == REFERENCE:
            raise ConfigError(
                f"two policies would be called {label!r}.", "Give one of them a label: {path: runs/a/policy, label: a}."
            )
    return labels


def _shortest(parts: Sequence[str], others: Sequence[Sequence[str]], taken: set[str]) -> str:
    for count in range(1, len(parts) + 1):
        label = "/".join(parts[-count:])
        if label not in {*taken, REFERENCE} and not any(list(parts[-count:]) == list(other[-count:]) for other in others):
            return label
    return "/".join(parts)


def _parts(path: str) -> list[str]:
    """The words of a path; the folder that every run calls "policy" says nothing."""
    parts = [part for part in Path(path).parts if part not in ("/", ".", "..", "~")]
    return (parts[:-1] if len(parts) > 1 and parts[-1] == "policy" else parts) or [path]


# -- what a policy started from ------------------------------------------------------------------------------------------


def _reference(options: Evaluate, policy: str, sandbox: bool) -> tuple[str | None, str]:
    if options.reference is None:
        return None, "evaluate.reference=null: no KL is measured."
    if options.reference != "auto":
        return checked_path("evaluate.reference", options.reference), f"Reference: {options.reference}."
    path, why = started_from(policy)
    if path is None and sandbox and not why:
        path, why = POCKET, "what sandbox runs start from where nothing else is set"
    if path is None:
        why = why or f"nothing in {policy} says what it started from"
        return None, f"No reference, so no KL: {why}. Give one: evaluate.reference=path/to/model."
    return path, f"Reference: {'the pocket model' if path == POCKET else path} ({why})."


def started_from(policy: str) -> tuple[str | None, str]:
    """(path or `POCKET`, how that is known), or (None, why it is of no use, "" where nothing is known).

    Asked are, in this order: the run that the folder belongs to, the adapter's own file, the model card.
    """
    folder = Path(policy).expanduser()
    for path, why in (_of_run(folder), _of_adapter(folder), _of_card(folder)):
        if path is None:
            continue
        if path == POCKET or _may_exist(path):
            return path, why
        return None, f"it started from {path} ({why}), which is not there"
    return None, ""


def _of_run(folder: Path) -> tuple[str | None, str]:
    """A run's reference is the one that its config names, else what its policy started from."""
    model = _group_of_run(folder, "model")
    if model.get("reference"):
        return str(model["reference"]), f"the reference of the run {folder.parent.name}"
    made_from = _json(folder.parent / RUN).get("start") if model else None  # as it was found, from whatever folder
    path = made_from or model.get("policy") or (POCKET if model.get("name") == POCKET else None)
    return (None if path is None else str(path)), f"what the run {folder.parent.name} started from"


def unlike_its_run(policy: str, data: Mapping[str, Any]) -> str:
    """What a policy's run read otherwise than this evaluation does, and would surprise; "" where nothing."""
    before = _group_of_run(Path(policy).expanduser(), "data")
    if not before:
        return ""
    name, template = before.get("name"), before.get("template")
    if data["name"] == "sandbox" and name != "sandbox":
        return (
            f"{policy} was trained on other data ({name} {before.get('path') or ''}), and is asked the sandbox's prompts "
            f"here. For prompts of its own data: data={name} data.path={before.get('path')}."
        )
    if template != data.get("template"):
        here = f"data.template={data.get('template')}"
        return f"{policy} was trained with data.template={template}, and reads its prompts by {here} here."
    return ""


def _group_of_run(folder: Path, group: str) -> dict[str, Any]:
    """A group of the config of the run that has made the policy; {} where there is none."""
    if folder.name != "policy" or not (folder.parent / RUN).is_file():
        return {}
    try:
        config = yaml.safe_load((folder.parent / CONFIG).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    found = config.get(group) if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def _of_adapter(folder: Path) -> tuple[str | None, str]:
    base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    return (str(base) if base else None), "what the adapter stands on"


def _of_card(folder: Path) -> tuple[str | None, str]:
    try:
        _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---", 2)
        base = (yaml.safe_load(head) or {}).get("base_model")
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return None, ""
    return (base if isinstance(base, str) else None), "what its model card says"


def _may_exist(path: str) -> bool:
    """A folder that is there, or what can be a hub id. An interpolation that was kept as it was is neither."""
    if os.path.isdir(os.path.expanduser(path)):
        return True
    hub = "${" not in path and not path.startswith((".", "/", "~")) and path.count("/") <= 1
    return hub and Path(path).parent.name != "runs"


def _same(one: str, other: str) -> bool:
    return one == other or (Path(one).expanduser().resolve() == Path(other).expanduser().resolve() and one != POCKET)


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Restore it, or give another folder.") from error
