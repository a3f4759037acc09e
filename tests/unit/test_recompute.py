from __future__ import annotations

import copy

import torch
from torch import Tensor

from omma.engine.recompute import recompute_activations
from omma.engine.rng import seed_step
from omma.engine.task import StepInfo, Task
from toy import ToyTask, toy_config


def _step(task: ToyTask) -> tuple[Tensor, list[Tensor], int]:
    """Loss, gradients and bytes that the forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    batch = task.example_batch(8)
    seed_step(0, 0, 0, 0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = task.training_step(batch, StepInfo(0, 0, 0.0))["loss"]
    forward_bytes = sum(kept.values())
    loss.backward()
    return loss.detach(), [p.grad for p in task.parameters()], forward_bytes


def test_same_loss_gradients_and_statistics_with_less_memory():
    config = toy_config()
    plain, wrapped = ToyTask(config), ToyTask(config)
    recompute_activations(wrapped)
    assert list(wrapped.state_dict()) == list(plain.state_dict())
    loss, gradients, plain_bytes = _step(plain)
    wrapped_loss, wrapped_gradients, wrapped_bytes = _step(wrapped)
    assert torch.allclose(wrapped_loss, loss, rtol=1e-6)
    assert all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in zip(gradients, wrapped_gradients, strict=True)
    )
    for name, value in plain.state_dict().items():
        assert torch.equal(wrapped.state_dict()[name], value), name
    assert wrapped_bytes < 0.5 * plain_bytes


class OneBlock(Task):
    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.model = block

    def checkpoint_blocks(self) -> list[torch.nn.Module]:
        return [self.model]


def test_dropout_inside_a_block_is_the_same_in_the_recomputation():
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 8))
    wrapped = copy.deepcopy(plain)
    recompute_activations(OneBlock(wrapped))
    x = torch.randn(4, 8)
    for module in (plain, wrapped):
        torch.manual_seed(1)
        module(x).square().sum().backward()
    assert torch.allclose(plain[0].weight.grad, wrapped[0].weight.grad)


def test_evaluation_is_untouched():
    task = ToyTask(toy_config()).eval()
    image = task.example_batch(2)["image"]
    expected = task.model(image)
    recompute_activations(task)
    with torch.no_grad():
        assert torch.equal(task.model(image), expected)
