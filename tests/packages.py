"""Third-party packages for tests: the one of docs/write-a-plugin.md, cut out of that page, those of examples/, and broken
ones that are written here. All are built and installed by pip, offline, into a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_PYPROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "{version}"
{entry_points}
[tool.setuptools.packages.find]
include = ["{top}*"]
[tool.setuptools.package-data]
"*" = ["*.yaml"]
"""


def write_package(folder: Path, name: str, entry_points: Mapping[str, Mapping[str, str]], files: Mapping[str, str]) -> Path:
    """A package's source: entry_points: group (objectives, rewards, conf) -> name -> value; files: path -> text."""
    top = name.replace("-", "_")
    lines = []
    for group, points in entry_points.items():
        lines += [f'[project.entry-points."accordant.{group}"]', *(f'{key} = "{value}"' for key, value in points.items())]
    source = folder / name
    for path, text in {f"{top}/__init__.py": "", **files}.items():
        file = source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        for parent in file.parents:
            if parent != source and parent.is_relative_to(source):
                (parent / "__init__.py").touch()
    text = _PYPROJECT.format(name=name, version="0.9", entry_points="\n".join(lines), top=top)
    (source / "pyproject.toml").write_text(text)
    return source


def install(target: Path, *sources: Path) -> Path:
    """Builds and installs packages into `target`, which then goes on the path."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(target), *map(str, sources)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


GUIDE = ROOT / "docs" / "write-a-plugin.md"
_SHOWN = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FIRST = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def guide_files() -> dict[str, str]:
    """Path -> text of the files that the guide to plugins shows."""
    return dict(_SHOWN.findall(GUIDE.read_text(encoding="utf-8")))


def from_guide(folder: Path) -> Path:
    """Does in an empty folder what the guide says, and returns the package's source."""
    folder.mkdir(parents=True)
    (first,) = _FIRST.findall(GUIDE.read_text(encoding="utf-8"))
    where = subprocess.run(
        ["bash", "-euc", f"{first}\npwd"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
    for path, text in guide_files().items():
        (Path(where) / path).write_text(text, encoding="utf-8")  # its folder is there, or the guide forgets it
    return Path(where)


def acme(folder: Path) -> Path:
    """The package of the guide, installed."""
    return install(folder / "site", from_guide(folder / "source"))


def example(folder: Path, name: str) -> Path:
    """A package of examples/, installed from a copy, so that building leaves nothing in the checkout."""
    source = folder / "source"
    shutil.copytree(ROOT / "examples" / name, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    return install(folder / "site", source)


def broken(folder: Path) -> Path:
    """Packages that go wrong in every way the registry has words for, side by side."""
    contract = "from core.api import Objective, RewardSource\n"
    good = "class Good(RewardSource):\n    'Works.'\n    def score(self, samples):\n        return [0.0] * len(samples)\n"
    sick = write_package(
        folder,
        "acme-sick",
        {
            "rewards": {
                "fine": "acme_sick.fine:Good",
                "needs_pkg": "acme_sick.needs_pkg:Good",
                "bad_name": "acme_sick.bad_name:Good",
                "bad_syntax": "acme_sick.bad_syntax:Good",
                "exits": "acme_sick.exits:Good",
                "raises": "acme_sick.raises:Good",
                "gone": "acme_sick.gone:Good",
                "old_api": "acme_sick.old_api:Good",
                "new_api": "acme_sick.new_api:Good",
                "no_class": "acme_sick.no_class:make",
                "no_attribute": "acme_sick.fine:Missing",
                "no_colon": "acme_sick.fine",
                "demanding": "acme_sick.demanding:Demanding",
                "targeted": "acme_sick.fine:Good",
            },
            "conf": {"sick": "acme_sick.conf", "lost": "nowhere_at_all.conf"},
        },
        {
            "acme_sick/fine.py": contract + good,
            "acme_sick/needs_pkg.py": "import surely_not_installed.deep\n" + contract + good,
            "acme_sick/bad_name.py": "from json import no_such_name\n" + contract + good,
            "acme_sick/bad_syntax.py": contract + "def broken(:\n",
            "acme_sick/exits.py": "import sys\nsys.exit(3)\n",
            "acme_sick/raises.py": "x = 1\nraise RuntimeError('no licence found')\n",
            "acme_sick/old_api.py": contract + good + "    api_version = 0\n",
            "acme_sick/new_api.py": contract + good + "    api_version = 99\n",
            "acme_sick/no_class.py": "def make():\n    pass\n",
            "acme_sick/demanding.py": contract
            + "from collections.abc import Sequence\n"
            + "class Demanding(RewardSource):\n"
            + "    def __init__(self, words: list[str], limit: int = 3, mode: str | None = None):\n"
            + "        self.words = words\n"
            + "    def score(self, samples):\n        return [0.0] * len(samples)\n",
            **{f"acme_sick/conf/reward/{n}.yaml": f"name: {n}\n" for n in ("fine", "raises", "exits", "gone", "demanding")},
            "acme_sick/conf/reward/targeted.yaml": "name: targeted\nmodel:\n  _target_: os.system\n",
            "acme_sick/conf/config.yaml": "seed: 666\n",
        },
    )
    rival = write_package(
        folder,
        "acme-rival",
        {
            "objectives": {"dpo": "acme_rival.dpo:DPO"},
            "rewards": {"length": "acme_rival.length:Length"},
            "conf": {"rival": "acme_rival.conf"},
        },
        {
            "acme_rival/dpo.py": contract
            + "class DPO(Objective):\n    'A rival.'\n    def loss(self, models, batch): ...\n",
            "acme_rival/length.py": contract
            + "class Length(RewardSource):\n    'A rival.'\n"
            + "    def __init__(self, words: int = 1):\n        self.words = words\n"
            + "    def score(self, samples):\n        return [0.0] * len(samples)\n",
            "acme_rival/conf/reward/length.yaml": "name: length\nwords: 1\n",
            "acme_rival/conf/reward/fine_too.yaml": "name: fine\n",
        },
    )
    return install(folder / "site", sick, rival)


def run_cli(*arguments: str, path: tuple[Path, ...] = (), cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m core.run ...` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *path))), "OMP_NUM_THREADS": "1", **env}
    environment.pop("ACCORDANT_PLUGINS", None) if "ACCORDANT_PLUGINS" not in env else None
    command = [sys.executable, "-m", "core.run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=120)
