from __future__ import annotations

import pytest
import torch

from omma.config.base import Optim
from omma.engine.optim import build_optimizer, places_of, set_lr
from omma.engine.rng import mix, seed_step
from omma.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_groups_keep_their_own_rate_under_the_schedule(name, kind):
    backbone, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    groups = [{"params": list(backbone.parameters()), "lr": 1e-4}, {"params": list(head.parameters())}]
    optimizer = build_optimizer(Optim(name=name, lr=1e-3, weight_decay=0.1), groups)
    assert type(optimizer) is kind
    set_lr(optimizer, 0.5)
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-5, 5e-4]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1]


def test_decay_of_weights_alone():
    """Bias, norm and a factor without an axis are spared; the state goes in the order of the groups."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    module.register_parameter("factor", torch.nn.Parameter(torch.zeros(())))
    config = Optim(name="adamw", weight_decay=0.1, decay="weights")
    optimizer = build_optimizer(config, [{"params": list(module.parameters()), "lr": 1e-3}])
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert decayed["params"] == [module[0].weight, module[2].weight]
    assert len(spared["params"]) == 5
    flat = decayed["params"] + spared["params"]
    parameters = list(module.parameters())
    assert all(flat[place] is p for place, p in zip(places_of(optimizer, module), parameters, strict=True))


def test_nothing_to_train_is_a_config_error():
    with pytest.raises(ConfigError, match="no parameter"):
        build_optimizer(Optim(), [{"params": []}])


def test_seeds_differ_in_every_argument_and_repeat():
    base = (3, 5, 1, 0)
    neighbours = [tuple(v + (i == place) for i, v in enumerate(base)) for place in range(4)]
    assert len({mix(*base), *(mix(*key) for key in neighbours)}) == 5
    assert mix(0, 1, 0, 0) != mix(0, 0, 1, 0)
    assert mix(*base) == 516500206117211855
    seed_step(*base)
    first = torch.rand(4)
    seed_step(*base)
    assert torch.equal(torch.rand(4), first)
