from __future__ import annotations

import pytest
import torch

from omma.engine.ema import Ema


def _module() -> torch.nn.Module:
    module = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    with torch.no_grad():
        module[0].weight.fill_(1.0)
    return module


def test_average_follows_the_closed_form():
    module = _module()
    ema = Ema(module, decay=0.5)
    expected = 1.0
    for step, value in enumerate((3.0, -2.0, 7.0, 4.0, 9.0, 1.0, 2.0, 5.0, 8.0, 6.0), start=1):
        with torch.no_grad():
            module[0].weight.fill_(value)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(ema.state_dict()["0.weight"]) == pytest.approx(expected, rel=1e-6)


def test_swap_shows_the_average_and_restores_the_weights_bit_for_bit():
    module = _module()
    ema = Ema(module, decay=0.9)
    with torch.no_grad():
        module[0].weight.fill_(0.1)
    before = module.state_dict()["0.weight"].clone()
    with ema.swapped_in():
        assert module[0].weight.item() == 1.0
    assert torch.equal(module.state_dict()["0.weight"], before)
    assert float(ema.state_dict()["0.weight"]) == 1.0


def test_swap_restores_after_an_exception():
    module = _module()
    ema = Ema(module, decay=0.9)
    with torch.no_grad():
        module[0].weight.fill_(0.1)
    with pytest.raises(RuntimeError), ema.swapped_in():
        raise RuntimeError
    assert module[0].weight.item() == pytest.approx(0.1)


def test_buffers_are_the_modules_own():
    module = _module()
    ema = Ema(module, decay=0.9)
    module(torch.randn(8, 1))
    assert torch.equal(ema.state_dict()["1.running_mean"], module.state_dict()["1.running_mean"])


def test_frozen_parameters_take_no_part():
    module = _module()
    module[1].weight.requires_grad_(False)
    ema = Ema(module, decay=0.9)
    state = ema.state_dict()
    assert set(state) == set(module.state_dict())
    other = Ema(_module(), decay=0.9)
    other.load_state_dict({**state, "0.weight": torch.full((1, 1), 5.0)})
    assert float(other.state_dict()["0.weight"]) == 5.0
