"""Installed from a built wheel it works from any folder, by module and by script, and finds its own conf."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.packages import ROOT, install


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for package in ("core", "plugins", "conf"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source / name)
    return install(folder / "site", source)


def call(site, tmp_path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "ACCORDANT_PLUGINS": "off"}
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)


def test_every_config_is_in_the_wheel(site):
    def found(folder):
        return {str(file.relative_to(folder)) for file in folder.rglob("*.yaml")}

    assert found(site / "conf") == found(ROOT / "conf")


def test_the_rubrics_of_the_judge_are_in_the_wheel(site):
    for mode in ("pointwise", "pairwise"):
        assert (site / "plugins" / "rewards" / "judging" / f"{mode}.md").is_file()


@pytest.mark.parametrize("how", ["module", "script"])
def test_module_and_script_find_their_conf(site, tmp_path, how):
    command = (
        [sys.executable, "-m", "core.run"] if how == "module" else [sys.executable, str(site / "bin" / "accordant"), "run"]
    )
    path = call(site, tmp_path, *command, "--info", "searchpath")
    assert f"plugin://{(site / 'conf').resolve()}" in path.stdout, path.stdout + path.stderr
    job = call(site, tmp_path, *command, "--cfg", "job", "objective=dpo", "reward=length")
    assert "name: dpo" in job.stdout, job.stdout + job.stderr
    assert "name: length" in job.stdout
    listed = call(site, tmp_path, *command[: 3 if how == "module" else 2], *(["--list"] if how == "module" else ["list"]))
    assert "objective  dpo" in listed.stdout, listed.stdout + listed.stderr
    assert list(tmp_path.iterdir()) == []
