from __future__ import annotations

import math

import pytest

from omma.config.base import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    Period,
    PlateauSchedule,
    PolySchedule,
    Share,
    StepSchedule,
)
from omma.engine.schedule import Length, Plateau, improved, lr_factor, warmup_steps

LENGTH = Length(total=200, steps_per_epoch=10)


def test_constant_and_plateau_leave_the_rate_to_themselves():
    assert lr_factor(ConstantSchedule(), 150, LENGTH) == 1.0
    assert lr_factor(PlateauSchedule(name="plateau"), 150, LENGTH) == 1.0


@pytest.mark.parametrize(
    ("step", "base_lr"), [(0, 2e-10), (750, 9.96250996250e-5), (1500, 1.985e-4), (100_000, 1e-4)]
)
def test_poly_with_warmup_as_in_mmcv(step, base_lr):
    """The values of mmcv's poly policy with linear warm-up: 2e-4, 1500 steps from 1e-6, 200,000 steps."""
    schedule = PolySchedule(name="poly", power=1.0, warmup=Period(1500), warmup_factor=1e-6)
    assert 2e-4 * lr_factor(schedule, step, Length(200_000, 1000)) == pytest.approx(base_lr, rel=1e-6)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.001), (250, 0.5005), (500, 1.0), (2930, 0.1), (4395, 0.01)]
)
def test_steps_at_epochs_with_warmup(step, factor):
    schedule = StepSchedule(
        name="step",
        at=[Period(10, "epochs"), Period(15, "epochs")],
        warmup=Period(500),
        warmup_factor=0.001,
    )
    assert lr_factor(schedule, step, Length(10_000, 293)) == pytest.approx(factor, rel=1e-12)


def test_step_every_period():
    schedule = StepSchedule(name="step", every=Period(2, "epochs"), gamma=0.5)
    assert [lr_factor(schedule, step, LENGTH) for step in (0, 19, 20, 39, 40)] == [1, 1, 0.5, 0.5, 0.25]


def test_linear_starts_after_the_warmup_and_ends_at_the_final_factor():
    schedule = LinearSchedule(name="linear", final_factor=0.2, warmup=Period(20), warmup_factor=0.0)
    factors = [lr_factor(schedule, step, LENGTH) for step in (0, 10, 20, 110, 200, 300)]
    assert factors == pytest.approx([0.0, 0.5, 1.0, 0.6, 0.2, 0.2])


def test_cosine_starts_after_the_warmup_and_ends_at_the_final_factor():
    schedule = CosineSchedule(name="cosine", final_factor=0.1, warmup=Period(20), warmup_factor=0.0)
    assert lr_factor(schedule, 10, LENGTH) == pytest.approx(0.5)
    assert lr_factor(schedule, 20, LENGTH) == 1.0
    assert lr_factor(schedule, 110, LENGTH) == pytest.approx(0.55)
    assert lr_factor(schedule, 65, LENGTH) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))
    assert lr_factor(schedule, 200, LENGTH) == pytest.approx(0.1)


def test_plateau_drops_after_patience_and_stops_at_the_floor():
    schedule = PlateauSchedule(name="plateau", patience=2, gamma=0.1, min_factor=0.05)
    plateau = Plateau()
    factors = []
    for value in (0.3, 0.4, 0.4, 0.2, 0.5, 0.1, 0.1, 0.1):
        plateau.update(schedule, value, "max")
        factors.append(plateau.factor)
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.05, 0.05])


def test_improved():
    assert improved(0.5, None, "max")
    assert not improved(math.nan, None, "max")
    assert improved(0.5, 0.4, "max")
    assert not improved(0.5, 0.4, "min")
    assert not improved(0.45, 0.4, "max", min_delta=0.1)


def test_a_warmup_may_be_a_share_of_all_steps():
    """As many whole steps as fit into it, from the factor of the first step on."""
    schedule = LinearSchedule(name="linear", warmup="10 %", warmup_factor=0.0)
    assert schedule.warmup == Share(10)
    assert warmup_steps(schedule, Length(total=219, steps_per_epoch=7)) == 21
    factors = [lr_factor(schedule, step, Length(219, 7)) for step in (0, 7, 21, 120, 219)]
    assert factors == pytest.approx([0, 1 / 3, 1, 0.5, 0])
    assert schedule.model_dump(mode="json")["warmup"] == "10 %"
    again = LinearSchedule.model_validate(schedule.model_dump(mode="json"))
    assert again == schedule
    assert warmup_steps(LinearSchedule(name="linear", warmup="2 epochs"), Length(219, 7)) == 14


@pytest.mark.parametrize("value", ["110 %", "-1 %", "ten %", "% 10", "10 % or so", 0.1])
def test_a_warmup_of_another_form_names_the_forms(value):
    with pytest.raises(ValueError, match="such as '10 %'"):
        LinearSchedule(name="linear", warmup=value)
