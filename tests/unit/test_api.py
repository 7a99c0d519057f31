import subprocess
import sys

import pytest

import core.api
from tests.packages import ROOT


def test_every_name_is_there():
    for name in core.api.__all__:
        assert getattr(core.api, name) is not None


def test_an_unknown_name_says_the_nearest():
    with pytest.raises(AttributeError, match='Did you mean "RewardSource"'):
        _ = core.api.RewardSorce


def test_stand_ins_act_as_the_real_thing():
    import torch

    from core.api import Batch, CollectContext, build_batch, functional
    from core.batch import Batch as RealBatch
    from core.collect import CollectContext as RealContext
    from core.rows import Response, Row

    batch = build_batch([Row("a", [1], (Response([2, 3], [True, True]),))])
    assert type(batch) is RealBatch
    assert isinstance(batch, Batch)
    assert not isinstance(3, Batch)
    assert issubclass(RealBatch, Batch)
    assert RealContext in type("Scripted", (RealContext,), {}).__mro__

    class Scripted(CollectContext):
        pass

    assert issubclass(Scripted, RealContext)
    assert functional.masked_mean(torch.tensor([1.0, 5.0]), torch.tensor([True, False])).item() == 1.0
    assert (Batch | None) == (RealBatch | None)


def test_importing_the_api_and_the_light_modules_imports_nothing_heavy():
    light = "core core.rows core.reward core.objective core.errors core.registry core.compose core.run core.cli core.api"
    plugins = (
        "plugins.objectives.sft plugins.objectives.dpo plugins.rewards.length plugins.rewards.gold plugins.rewards.function "
        "plugins.rewards.judge"
    )
    modules = [
        *light.split(),
        "core.options",
        "core.runs",
        "core.crosscheck",
        "core.settings",
        "core.logger_options",
        "core.listing",
        "core.testing",
        *plugins.split(),
    ]
    code = (
        f"import sys, importlib\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        "    heavy = [m for m in ('torch', 'lightning', 'transformers', 'datasets', 'wandb') if m in sys.modules]\n"
        "    assert not heavy, (name, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
