"""Who may import whom. Read from the source text, so that imports inside functions count too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages import ROOT

CORE = sorted((ROOT / "core").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
# Packages of others, as we would like them.
EXAMPLES = sorted((ROOT / "examples").glob("accordant-*/accordant_*/**/*.py"))
# The gold judge *is* the sandbox's: a plugin because rewards are chosen by name, not because it could stand alone.
MAY_BESIDES = {"plugins/rewards/gold.py": {"core.data.sandbox"}}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", CORE, ids=name)
def test_core_imports_no_plugin(file):
    assert not [m for m in imports(file) if m.partition(".")[0] == "plugins"]


@pytest.mark.parametrize("file", PLUGINS, ids=name)
def test_plugins_import_only_the_api(file):
    allowed = {"core.api", *MAY_BESIDES.get(name(file), set())}
    ours = {m for m in imports(file) if m.partition(".")[0] in ("core", "conf")}
    assert ours <= allowed, f"{ours - allowed}: a plugin imports core.api"
    assert not [m for m in imports(file) if m.partition(".")[0] in ("hydra", "omegaconf", "lightning")]


@pytest.mark.parametrize("file", EXAMPLES, ids=name)
def test_packages_of_others_import_only_the_api(file):
    others = {"core", "plugins", "conf", "tests", "hydra", "omegaconf", "lightning", "torch"}
    assert {m for m in imports(file) if m.partition(".")[0] in others} <= {"core.api"}


def test_there_are_packages_of_others():
    assert {"grpo.py", "rloo.py", "repetition.py"} <= {file.name for file in EXAMPLES}


@pytest.mark.parametrize("file", CORE, ids=name)
def test_hydra_stops_at_the_command_line(file):
    if file.name != "compose.py":
        assert not [m for m in imports(file) if m.partition(".")[0] in ("hydra", "omegaconf")]


@pytest.mark.parametrize("file", CORE, ids=name)
def test_no_objective_is_named_in_core(file):
    """The core asks an objective what it declares, never who it is. Docstrings may name one as an example."""
    tree = ast.parse(file.read_text())
    names = {"sft", "dpo", "ppo", "reward_bt", "reward_margin", "rejection_sampling"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                assert not (isinstance(side, ast.Constant) and side.value in names), f"{file}:{node.lineno}"


def test_plugins_catch_no_exception_but_around_an_import():
    """`except Exception` would hide a bug; core.registry and the function reward import foreign code."""
    allowed = {"core/registry.py", "plugins/rewards/function.py"}
    for file in (*CORE, *PLUGINS):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                words = set(caught.strip("()").replace(" ", "").split(","))
                assert not words & {"Exception", "everything"} or name(file) in allowed, f"{file}:{node.lineno}: {caught}"
