"""The three lines: every promise of every plugin of this package."""

import pytest
from accordant_grpo.grpo import GRPO
from accordant_grpo.repetition import Repetition
from accordant_grpo.rloo import RLOO

from core.testing import objective_checks, reward_checks

CHECKS = [*objective_checks(GRPO()), *objective_checks(RLOO()), *reward_checks(Repetition())]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_contract(check):
    check.run()
