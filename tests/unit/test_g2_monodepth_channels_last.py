"""Steps of the UNet with derivatives written out, against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omma.systems.g2_monodepth.channels_last import HalvingConv, join
from omma.systems.g2_monodepth.unet import UNet


def features(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return values.contiguous(memory_format=torch.channels_last).requires_grad_()


def gradients(result: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(9)).to(result.dtype)
    return torch.autograd.grad((result * weights).sum(), of)


@pytest.mark.parametrize("size", [(8, 12), (7, 10), (9, 5), (2, 2)])
def test_halving_convolution(size: tuple[int, int]) -> None:
    conv = HalvingConv(6, 4).to(memory_format=torch.channels_last)
    x = features(3, 6, *size)
    ours, plain = conv(x), F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
    assert "_Halved" in type(ours.grad_fn).__name__
    assert torch.equal(ours, plain)
    of = (x, conv.weight, conv.bias)
    torch.testing.assert_close(gradients(ours, *of), gradients(plain, *of), rtol=1e-4, atol=1e-5)


def test_halving_convolution_of_data_and_with_frozen_weights() -> None:
    conv, x = HalvingConv(6, 4).to(memory_format=torch.channels_last), features(2, 6, 8, 8)
    conv(x.detach()).sum().backward()
    assert conv.weight.grad is not None
    conv.requires_grad_(False)
    conv(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_join(dtype: torch.dtype) -> None:
    skip, deep = features(2, 3, 8, 12, dtype=dtype), features(2, 5, 4, 6, dtype=dtype, seed=1)
    ours = join(skip, deep)
    plain = torch.cat([skip, F.interpolate(deep, scale_factor=2.0, mode="nearest")], dim=1)
    assert "_Joined" in type(ours.grad_fn).__name__
    assert torch.equal(ours, plain)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gradients(ours, skip, deep), gradients(plain, skip, deep))


@pytest.mark.parametrize("bf16", [False, True])
def test_a_whole_network_in_both_layouts(bf16: bool) -> None:
    torch.manual_seed(0)
    network = UNet(layers=4, features=8)
    for block in network.checkpoint_blocks():
        torch.nn.init.constant_(block.alpha, 0.3)
    x = torch.rand(2, 5, 32, 48)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        network.to(memory_format=layout).zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            depth = network(x)
        depth.float().square().sum().backward()
        slopes = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        found.append((depth.detach().float(), slopes))
    for plain, ours in zip(*found, strict=True):
        assert (ours - plain).norm() < (3e-2 if bf16 else 1e-5) * plain.norm()


def test_other_layouts_and_inference_are_left_to_pytorch() -> None:
    skip, deep = features(1, 3, 8, 8), features(1, 3, 4, 4)
    assert "Cat" in type(join(skip.contiguous(), deep.contiguous()).grad_fn).__name__
    with torch.no_grad():
        assert torch.equal(join(skip, deep), join(skip.contiguous(), deep.contiguous()))
