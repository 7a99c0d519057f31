"""Conformance checks for plugin authors: named, small, on the CPU.

    @pytest.mark.parametrize("check", reward_checks(Tone()), ids=str)
    def test_contract(check):
        check.run()

The same list runs as `--check NAME`.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import yaml  # type: ignore[import-untyped]

from core import registry
from core.errors import ConfigError, PluginError, UserError
from core.objective import Collects, MeanOver, Objective, Reads, Role
from core.options import parameters
from core.registry import Entry
from core.reward import RewardSource, Sample, checked_comparison, needs_of

_TOO_HEAVY = ("lightning", "hydra")


@dataclass(frozen=True)
class Check:
    """One promise. `run` raises AssertionError (or a UserError) that says how it is broken; its text is a remark."""

    name: str
    run: Callable[[], str | None]

    def __str__(self) -> str:
        return self.name


def plugin_checks(
    kind: str, name: str, options: Mapping[str, Any] | None = None, prefer: Mapping[str, str] | None = None
) -> Iterator[Check]:
    """Every check of an installed plugin: its package, its config, and what its kind promises.

    Where the plugin cannot be built from its defaults and says what it needs, give `options`; without them the checks
    of its behaviour are left out.
    """
    entry = registry.find(kind, name, prefer)
    plugin = registry.load(entry)
    yield Check("importing it imports neither Lightning nor Hydra", lambda: _imports_lightly(entry))
    yield Check("has a docstring whose first line says what it is", lambda: _has_docstring(entry))
    yield Check("its YAML has the constructor's parameters and defaults", lambda: _yaml_matches(entry, plugin))
    wanted = {"name": name, **(options or {})}
    build = registry.build_objective if kind == "objective" else registry.build_reward
    try:
        built: Any = build(wanted, prefer)
    except UserError as error:
        if options:
            raise
        needs = error
        yield Check("builds with its defaults, or says which option it needs", lambda: f"behaviour not checked: {needs}")
        return
    yield Check("builds with its defaults, or says which option it needs", lambda: None)
    if isinstance(built, Objective):
        yield from objective_checks(built)
    else:
        yield from reward_checks(built)


def _imports_lightly(entry: Entry) -> None:
    code = (
        f"import sys, importlib; importlib.import_module({entry.module!r}); "
        f"print(*[name for name in {_TOO_HEAVY!r} if name in sys.modules])"
    )
    paths = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {code}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (
        f"importing {entry.module} in a fresh process fails: {done.stderr.strip().splitlines()[-1:]}"
    )
    assert not done.stdout.strip(), f"importing {entry.module} imports {done.stdout.strip()}; import it where it is used."


def _has_docstring(entry: Entry) -> None:
    line = registry.first_line(entry)
    assert line, f"{entry.value}: neither the class nor its module has a docstring."
    assert not line.startswith("("), f"{entry.value}: {line}"


def _yaml_matches(entry: Entry, plugin: Any) -> None:
    folders = [registry.folder_of(e) for e in registry.entries("conf") if e.distribution == entry.distribution]
    files = [f / entry.kind / f"{entry.name}.yaml" for f in folders if f is not None]
    found = [file for file in files if file.is_file()]
    assert found, f"{entry.distribution} ships no {entry.kind}/{entry.name}.yaml by an accordant.conf entry point."
    written = dict(yaml.safe_load(found[0].read_text(encoding="utf-8")) or {})
    assert written.pop("name", None) == entry.name, f"{found[0]}: expected the line `name: {entry.name}`."
    known = parameters(plugin)
    assert set(written) == set(known), f"{found[0]} has the keys {sorted(written)}; the constructor has {sorted(known)}."
    for key, parameter in known.items():
        if parameter.default is not inspect.Parameter.empty:
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            empty = default is None and written[key] in ([], {})  # a mutable default is written as None in Python
            assert empty or _same(written[key], default), (
                f"{found[0]}: {key} is {written[key]!r}; the constructor's default is {default!r}."
            )


def _same(written: Any, default: Any) -> bool:
    return bool(written == default) and isinstance(written, bool) == isinstance(default, bool)


def objective_checks(objective: Objective) -> Iterator[Check]:
    """What an objective promises: its declarations, then its collections and losses on a tiny model (`core.promises`)."""
    yield Check("its declarations are of the contract's words", lambda: _declares(objective))
    yield Check("bind answers with and without a reward, or says why not", lambda: _binds(objective))
    from core.promises import PROMISES, Trial

    for name, question in PROMISES.items():
        yield Check(name, lambda question=question: question(Trial(objective)))  # type: ignore[misc]


def _declares(objective: Objective) -> None:
    roles = set(typing.get_args(Role))
    words: dict[str, Any] = {"reads": Reads, "collects": Collects, "mean_over": MeanOver}
    for name, allowed in words.items():
        value = getattr(objective, name)
        assert value in typing.get_args(allowed), f"{name} is {value!r}; expected one of {typing.get_args(allowed)}."
    uses = ("measured", "optional", "required", "refused")
    assert objective.reward_use in uses, f"reward_use is {objective.reward_use!r}; expected one of {uses}."
    assert objective.trains, "trains is empty: no role would learn."
    assert objective.trains <= roles, f"trains is {set(objective.trains)}; the roles are {roles}."
    assert objective.frozen <= roles, f"frozen is {set(objective.frozen)}; the roles are {roles}."
    both = objective.trains & objective.frozen
    assert not both, f"{both} is trained and frozen at once."
    for name in ("default_lr", "default_eps"):
        value = getattr(objective, name)
        assert 0 < value < math.inf, f"{name} is {value}; expected a positive number."
    for name in ("minibatches", "passes"):
        value = getattr(objective, name)
        right = isinstance(value, int) and value >= 1
        assert right, f"{name} is {value!r}; expected a whole number of at least 1."
    sampled = objective.collects == "every_epoch" and "policy" in objective.trains
    assert sampled or not objective.on_policy, "on_policy is True: then it collects every_epoch, and trains the policy."


def _binds(objective: Objective) -> None:
    names: dict[str, list[str | None]] = {"required": ["length"], "refused": [None]}
    for name in names.get(objective.reward_use, [None, "length"]):
        bound = copy.deepcopy(objective)
        try:
            said = bound.bind(name)
        except ConfigError:
            continue  # options that cannot go with this reward: said in plain words, as it should be
        assert isinstance(said, str), f"bind({name!r}) returned {said!r}; expected a sentence."
        _declares(bound)


def reward_checks(source: RewardSource, samples: Sequence[Sample] | None = None) -> Iterator[Check]:
    """What a reward source promises. `samples`: at least three of your own, where made-up texts will not do.

    What it remembers of collections is as before when a check has run.
    """
    needs = needs_of(source)
    columns = sorted(needs - {"references"})
    if samples is None and columns:
        remark = f"not checked: it needs the columns {', '.join(columns)}; call reward_checks with samples of yours"
        yield Check("scores are finite, pure, and independent of order and batch", lambda: remark)
        return
    rows = list(samples) if samples is not None else made_up_samples(references="references" in needs)
    yield Check("reads only the columns that `needs` declares", lambda: _reads_declared(source, rows))
    yield Check("gives one finite number (or None) per sample", lambda: _finite(source, rows))
    yield Check("is pure: two calls agree", lambda: _agrees(_scores(source, rows), _scores(source, rows), "called again"))
    yield Check(
        "does not depend on the order of samples",
        lambda: _agrees(_scores(source, rows), _reversed(source, rows), "in reverse order"),
    )
    yield Check(
        "does not depend on the size of the batch",
        lambda: _agrees(_scores(source, rows), _one_by_one(source, rows), "one by one"),
    )
    yield Check("score is score_parts without the parts", lambda: _parts_fit(source, rows))
    yield Check(
        "compare gives one number from 0 to 1 per pair, and turns round with the sides", lambda: _compares(source, rows)
    )
    yield Check("what fit gathers is in its state, as plain containers", lambda: _remembers(source, rows))
    yield Check("a state that is loaded gives its scores again; {} forgets", lambda: _restores(source, rows))


def made_up_samples(*, references: bool = False) -> list[Sample]:
    """Short, long, empty, cut and foreign answers. Tokens are the UTF-8 bytes."""
    texts = ["Paris.", "The capital of France is Paris.", "", " ", "I do not know.", "Так, Paris! 🎉", "word " * 400]
    return [
        Sample(
            prompt="What is the capital of France?",
            response=text,
            tokens=list(text.encode()),
            references=("Paris is the capital of France.",) if references else (),
            finished=len(text) < 1000,
            row_id=f"made-up-{index}",
        )
        for index, text in enumerate(texts)
    ]


def _scores(source: RewardSource, samples: Sequence[Sample]) -> list[float | None]:
    return list(source.score(samples))


def _reads_declared(source: RewardSource, samples: Sequence[Sample]) -> None:
    needs = needs_of(source)
    kept = [
        replace(
            sample,
            columns={key: value for key, value in sample.columns.items() if key in needs},
            references=sample.references if "references" in needs else (),
        )
        for sample in samples
    ]
    try:
        source.score(kept)
    except (KeyError, IndexError) as error:
        raise AssertionError(
            f"score fails on samples without undeclared columns: {type(error).__name__} {error}; add it to `needs`."
        ) from error


def _finite(source: RewardSource, samples: Sequence[Sample]) -> None:
    scores = _scores(source, samples)
    assert len(scores) == len(samples), f"{len(scores)} scores for {len(samples)} samples."
    for score, sample in zip(scores, samples, strict=True):
        plain = score is None or (isinstance(score, (int, float)) and math.isfinite(score))
        assert plain, f"the score of {sample.response[:40]!r} is {score!r}; expected a finite number or None."
    assert list(source.score([])) == [], "no samples should give no scores."


def _reversed(source: RewardSource, samples: Sequence[Sample]) -> list[float | None]:
    return _scores(source, list(reversed(samples)))[::-1]


def _one_by_one(source: RewardSource, samples: Sequence[Sample]) -> list[float | None]:
    return [score for sample in samples for score in source.score([sample])]


def _agrees(left: Sequence[float | None], right: Sequence[float | None], how: str) -> None:
    same = len(left) == len(right) and all(
        a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6))
        for a, b in zip(left, right, strict=True)
    )
    assert same, f"scores {how} differ: {list(left)} and {list(right)}."


def _parts_fit(source: RewardSource, samples: Sequence[Sample]) -> None:
    scored = source.score_parts(samples)
    _agrees(_scores(source, samples), scored.scores, "by score_parts")
    for label, part, decided in scored.walk():
        assert len(part.scores) == len(samples), f"part {label}: {len(part.scores)} scores for {len(samples)} samples."
        shares = list(decided or [])
        assert not shares or len(shares) == len(samples), f"part {label}: decided has {len(shares)} of {len(samples)}."
        assert all(0 <= share <= 1 for share in shares), f"part {label}: decided is {shares}; expected shares, 0 to 1."


def _compares(source: RewardSource, samples: Sequence[Sample]) -> None:
    """Each answer against each other one, as if they were answers to one prompt."""
    row = samples[0]
    answers = [replace(row, response=s.response, tokens=s.tokens, finished=s.finished) for s in samples]
    pairs = [(one, other) for i, one in enumerate(answers) for other in answers[i:]]
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    try:
        there = checked_comparison("compare", source.compare(first, second), len(pairs))
        back = checked_comparison("compare", source.compare(second, first), len(pairs))
    except PluginError as error:
        raise AssertionError(str(error)) from error
    _agrees(there.wins, [None if win is None else 1.0 - win for win in back.wins], "of a pair, and of its sides swapped,")
    same = [win for win, (one, other) in zip(there.wins, pairs, strict=True) if one is other and win is not None]
    assert all(win == 0.5 for win in same), f"an answer against itself gives {same}; expected 0.5 each."
    assert list(source.compare([], []).wins) == [], "no pairs should give no comparison."


@contextmanager
def _put_back(source: RewardSource) -> Iterator[dict[str, Any]]:
    """Gives the state of the source, and loads it again in the end."""
    before = source.state_dict()
    try:
        yield before
    finally:
        source.load_state_dict(before)


def _remembers(source: RewardSource, samples: Sequence[Sample]) -> None:
    with _put_back(source) as before:
        written = json.dumps(before, allow_nan=False)
        scores = _scores(source, samples)
        source.fit([])
        _agrees(scores, _scores(source, samples), "after fit without samples")
        source.fit(samples)
        assert json.dumps(before, allow_nan=False) == written, "fit changed a state that was given out; give out a copy."
        state = source.state_dict()
        assert json.loads(json.dumps(state, allow_nan=False)) == state, f"state_dict is {state}; expected plain containers."
        if state == before:
            _agrees(scores, _scores(source, samples), "after fit, which left no state,")


def _restores(source: RewardSource, samples: Sequence[Sample]) -> None:
    with _put_back(source):
        source.load_state_dict({})
        assert source.state_dict() == {}, f"after load_state_dict({{}}) the state is {source.state_dict()}; expected {{}}."
        fresh = _scores(source, samples)
        source.fit(samples)
        state, fitted = source.state_dict(), _scores(source, samples)
        source.load_state_dict({})
        _agrees(fresh, _scores(source, samples), "after load_state_dict({})")
        source.load_state_dict(state)
        assert source.state_dict() == state, "load_state_dict(state) gave another state."
        _agrees(fitted, _scores(source, samples), "after load_state_dict(state)")
