import pytest

from omma.commands.smoke import fit_warmup, smoke_overrides
from omma.systems.recipes import open_recipe


def _recipe(*words):
    return open_recipe("lss/base", [*words])


def test_a_trial_warms_up_in_a_twentieth_of_its_steps():
    words = smoke_overrides(300)
    recipe, line = fit_warmup(_recipe(*words, "schedule.warmup=1500"), 300, words[:0])
    assert recipe.config.schedule.warmup.count == 15
    assert "instead of 1500" in line


@pytest.mark.parametrize(("smoke", "asked"), [(None, []), (300, ["schedule.warmup=1500"])])
def test_the_warm_up_of_a_real_run_or_asked_for_is_kept(smoke, asked):
    recipe, line = fit_warmup(_recipe("train.length=300", "schedule.warmup=1500"), smoke, asked)
    assert recipe.config.schedule.warmup.count == 1500
    assert line is None
