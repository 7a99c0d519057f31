"""What processes tell each other; two real ones are in tests/invariance."""

import subprocess
import sys

import torch

from core.api import from_all_processes
from tests.packages import ROOT


def test_a_single_process_has_its_own_value():
    assert from_all_processes({"a": 1}) == [{"a": 1}]


def test_asking_imports_no_torch():
    code = "import sys; from core.api import from_all_processes as f; print(f(3), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["[3]", "False"]


def test_values_come_in_order_of_rank(monkeypatch):
    def gather(into, value):
        into[:] = ["of rank 0", value]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert from_all_processes("mine") == ["of rank 0", "mine"]
