"""DiffBEV's diffusion: the schedule and sampler against closed forms, and what the refiner promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omma.errors import ConfigError, DataError
from omma.systems.diffbev.attention import MapAttention, sincos_positions
from omma.systems.diffbev.diffusion import Diffusion, sample_times
from omma.systems.diffbev.refine import DiffusionRefiner

C, SIZE, K = 8, (9, 14), 3
FUSIONS = ["cross_attention", "concat", "add"]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"condition": "fo", "fusion": "concat", "prediction": "v"},
    {"condition": "fs", "fusion": "add", "prediction": "x0", "widths": (8, 24, 16)},
    {"denoise": "label", "x_t_encoding": "self_attention", "num_timesteps": 50},
    {"denoise": "label", "condition": "fo", "prediction": "v", "sample_steps": 1},
]


def refiner(**settings: Any) -> DiffusionRefiner:
    torch.manual_seed(0)
    base: dict[str, Any] = {"num_classes": K, "widths": (8, 16, 16)}
    return DiffusionRefiner(C, SIZE, **(base | settings))


def maps(batch: int = 2, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Features, pooled depth and noise."""
    generator = torch.Generator().manual_seed(seed)
    bev, depth, noise = (torch.randn(batch, c, *SIZE, generator=generator) for c in (C, 1, C))
    return 0.1 * bev.relu(), depth.abs(), noise


def labels(batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    size = (2 * SIZE[0], 2 * SIZE[1])
    return tuple(torch.rand(batch, c, *size, generator=generator) > 0.5 for c in (K, 1))


def train_once(model: DiffusionRefiner, batch: int = 2) -> tuple[Tensor, Tensor]:
    bev, depth, noise = maps(batch)
    times = torch.arange(batch) * 7
    return model.training_forward(bev, depth, times=times, noise=noise, label=labels(batch))


def wake(model: DiffusionRefiner) -> DiffusionRefiner:
    """A fusion that does something."""
    with torch.no_grad():
        for parameter in model.fusion.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return model


def linear_alpha_bar(steps: int = 1000) -> Tensor:
    return (1 - torch.linspace(1e-4, 2e-2, steps, dtype=torch.float64)).cumprod(0)


# --- schedule and sampler ---


def test_a_thousand_steps_are_the_linear_schedule() -> None:
    diffusion = Diffusion(1000, 3, "eps")
    torch.testing.assert_close(diffusion.signal.double() ** 2, linear_alpha_bar(), rtol=1e-5, atol=0)
    torch.testing.assert_close(diffusion.sigma.double() ** 2, 1 - linear_alpha_bar(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("steps", [1, 7, 100, 2500])
def test_any_length_follows_the_same_curve(steps: int) -> None:
    signal = Diffusion(steps, 1, "eps").signal
    assert float(signal[-1]) == pytest.approx(float(linear_alpha_bar()[-1].sqrt()), rel=1e-5)
    assert (signal.diff() < 0).all()
    if steps == 100:
        torch.testing.assert_close(signal.double() ** 2, linear_alpha_bar()[9::10], rtol=1e-5, atol=0)


def test_times_of_the_calls() -> None:
    assert sample_times(1000, 1) == [999]
    assert sample_times(1000, 3) == [999, 666, 333]
    assert sample_times(1000, 10) == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert sample_times(5, 5) == [4, 3, 2, 1, 0]
    assert sample_times(1, 1) == [0]


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_the_target_leads_back_to_the_clean_map(prediction: Any) -> None:
    diffusion = Diffusion(1000, 1, prediction)
    clean, noise = torch.randn(4, 2, 3, 3).clamp(-4, 4), torch.randn(4, 2, 3, 3)
    times = torch.tensor([0, 10, 300, 800])
    x_t = diffusion.noised(clean, noise, times)
    again = diffusion.denoised(diffusion.target(clean, noise, times), x_t, times)
    torch.testing.assert_close(again, clean, rtol=1e-4, atol=1e-4)
    variance = diffusion.target(clean / clean.std(), noise / noise.std(), times).var()
    assert float(variance) == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 40])
def test_a_network_that_knows_gives_the_clean_map_in_any_number_of_steps(prediction: Any, steps: int) -> None:
    diffusion = Diffusion(40, steps, prediction)
    clean, start = torch.randn(1, 2, 5, 5).clamp(-3, 3), torch.randn(1, 2, 5, 5)

    def knows(x_t: Tensor, times: Tensor) -> Tensor:
        noise = (x_t - diffusion.signal[times] * clean) / diffusion.sigma[times]
        return diffusion.target(clean, noise, times)

    torch.testing.assert_close(diffusion.sample(knows, start), clean, rtol=1e-3, atol=2e-3)


def test_sampling_a_gaussian_only_scales_the_noise() -> None:
    """Clean values from N(0, s^2): the best guess is linear in x_t and the path of each value is known."""
    s, diffusion = 0.5, Diffusion(1000, 1000, "x0")

    def best(x_t: Tensor, times: Tensor) -> Tensor:
        signal, sigma = diffusion.signal[times], diffusion.sigma[times]
        return x_t * s**2 * signal / (s**2 * signal**2 + sigma**2)

    start = torch.linspace(-2, 2, 9).view(1, 1, 3, 3)
    torch.testing.assert_close(diffusion.sample(best, start), s * start, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_sampler_against_the_formulas_written_out(prediction: Any) -> None:
    """DDIM, equation 12 of arXiv 2010.02502 with sigma = 0, in float64 with a network of one line."""
    x = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(4))
    network = lambda x, t: torch.sin(3 * x) * (1 + t / 1000) * 0.6  # noqa: E731
    sampled = Diffusion(1000, 3, prediction).sample(lambda x_t, times: network(x_t, times.float()), x)
    alpha_bar, state = linear_alpha_bar(), x.double()
    for t, before in ((999, 666), (666, 333), (333, None)):
        a, told = float(alpha_bar[t]), network(state, t)
        guess = {
            "eps": (state - math.sqrt(1 - a) * told) / math.sqrt(a),
            "v": math.sqrt(a) * state - math.sqrt(1 - a) * told,
            "x0": told,
        }[prediction]
        noise = (state - math.sqrt(a) * guess) / math.sqrt(1 - a)
        guess = torch.clip(guess, -5, 5)
        b = 1.0 if before is None else float(alpha_bar[before])
        state = math.sqrt(b) * guess + math.sqrt(1 - b) * noise
    torch.testing.assert_close(sampled.double(), state, rtol=1e-3, atol=1e-3)


# --- attention ---


def test_attention_against_a_sum_over_cells() -> None:
    torch.manual_seed(0)
    layer = MapAttention(8, (3, 5), stride=2).double()
    for buffer in layer.buffers():
        buffer.data = buffer.data.double()
    asking, memory = torch.randn(1, 8, 3, 5).double(), torch.randn(1, 8, 2, 3).double()
    result = layer(asking, memory)[0, :, 1, 4]
    query = layer.query(layer.query_norm(asking[0, :, 1, 4]) + layer.query_positions[0, 1 * 5 + 4])
    values = layer.memory_norm(memory[0].flatten(1).T)
    keys, values = layer.key(values + layer.memory_positions[0]), layer.value(values)
    mixed = []
    for head in range(4):
        part = slice(2 * head, 2 * head + 2)
        weights = torch.exp(keys[:, part] @ query[part] / math.sqrt(2))
        mixed.append((weights[:, None] * values[:, part]).sum(0) / weights.sum())
    torch.testing.assert_close(result, layer.proj(torch.cat(mixed)))


def test_coarse_positions_are_the_centres_of_the_cells_they_cover() -> None:
    """A cell of stride 2 lies between two fine ones: its slowest wave is close to their mean."""
    fine = sincos_positions((5, 7), 16).view(5, 7, 16)
    coarse = sincos_positions((5, 7), 16, step=2).view(3, 4, 16)
    means = (fine[0:4:2, 0:6:2] + fine[1:4:2, 1:6:2]) / 2
    slow = [3, 7, 11, 15]
    torch.testing.assert_close(coarse[:2, :3, slow], means[..., slow], atol=1e-4, rtol=0)
    assert sincos_positions((2, 3), 6).shape == (1, 6, 6)


# --- refiner ---


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("autocast", [False, True])
def test_at_step_0_the_features_stay_as_they_are(fusion: str, autocast: bool) -> None:
    model = refiner(fusion=fusion)
    bev, depth, noise = maps()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        assert torch.equal(train_once(model)[0], bev)
        assert torch.equal(model.eval()(bev, depth, noise), bev)


@pytest.mark.parametrize("settings", VARIANTS)
def test_every_parameter_gets_a_gradient(settings: dict[str, Any]) -> None:
    model = wake(refiner(**settings))
    refined, loss = train_once(model)
    (refined.square().mean() + loss).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a bias before a normalisation or the soft-max cancels, up to rounding
    assert [name for name in still if not name.endswith("bias")] == []
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("settings", VARIANTS)
def test_inference_is_of_the_noise_alone(settings: dict[str, Any]) -> None:
    model = wake(refiner(**settings)).eval()
    bev, depth, noise = maps(3)
    with torch.inference_mode():
        whole = model(bev, depth, noise)
        torch.testing.assert_close(model(bev, depth, noise), whole, rtol=0, atol=0)
        single = torch.cat([model(bev[[i]], depth[[i]], noise[[i]]) for i in range(3)])
        assert (model(bev, depth, noise.flip(0)) - whole).abs().max() > 1e-3
    torch.testing.assert_close(single, whole, rtol=1e-4, atol=1e-5)
    assert (whole - bev).abs().max() > 1e-3


def test_sampling_ignores_the_mode_and_leaves_the_statistics() -> None:
    model = wake(refiner())
    before = {name: t.clone() for name, t in model.state_dict().items()}
    trained = model.train()(*maps())
    torch.testing.assert_close(model.eval()(*maps()), trained, rtol=0, atol=0)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_number_of_calls(steps: int) -> None:
    model = wake(refiner(sample_steps=steps)).eval()
    asked: list[int] = []
    model.unet.register_forward_hook(lambda module, args, out: asked.append(int(args[2])))
    assert model(*maps()).isfinite().all()
    assert asked == sample_times(1000, steps)
    asked.clear()
    model.unet._forward_hooks.clear()
    model.unet.register_forward_hook(lambda module, args, out: asked.append(len(args[2])))
    train_once(model)
    assert asked == [2]


def test_noise_of_each_sample_is_of_its_own_time() -> None:
    """At t = 0 hardly any, at the end nothing else."""
    model = refiner(num_timesteps=1000).eval()
    seen: list[Tensor] = []
    model.unet.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    bev, depth, noise = maps()
    model.training_forward(bev, depth, times=torch.tensor([0, 999]), noise=noise)
    standard = F.batch_norm(bev, model.standardise.running_mean, model.standardise.running_var)
    torch.testing.assert_close(seen[0][0], standard[0], rtol=0, atol=0.05)
    torch.testing.assert_close(seen[0][1], noise[1], rtol=0, atol=0.05)


def test_features_are_noised_at_unit_variance_and_without_gradient() -> None:
    model = refiner(fusion="add", condition="fs")
    bev, depth, noise = maps()
    bev.requires_grad_()
    clean = model._clean(1e3 * bev, None)
    assert not clean.requires_grad
    assert float(clean.std()) == pytest.approx(1, abs=0.1)
    assert float(model._clean(torch.eye(9, 14).expand(1, C, 9, 14) * 1e6, None).max()) <= 5
    _, loss = model.training_forward(bev, depth, times=torch.tensor([1, 2]), noise=noise)
    loss.backward()
    assert bev.grad is None  # condition fs does not look at the features


@pytest.mark.parametrize(("condition", "features", "depth"), [("fo", 1, 0), ("fs", 0, 1), ("sum", 1, 1)])
def test_what_the_condition_depends_on(condition: str, features: bool, depth: bool) -> None:
    model = refiner(condition=condition).eval()
    bev, pooled, _ = maps()
    plain = model._condition(bev, pooled)
    assert (not torch.equal(model._condition(2 * bev, pooled), plain)) == features
    assert (not torch.equal(model._condition(bev, 2 * pooled), plain)) == depth


def test_label_embedding_sees_visible_cells_only() -> None:
    model = refiner(denoise="label").eval()
    target, visible = labels()
    hidden = target ^ ~visible
    bev = torch.zeros(2, C, *SIZE)
    clean = model._clean(bev, (target, visible))
    torch.testing.assert_close(model._clean(bev, (hidden, visible)), clean)
    assert not torch.equal(model._clean(bev, (~target, visible)), clean)
    everywhere = model._clean(bev, (torch.ones_like(target), torch.ones_like(visible)))
    weight, bias = model.embed_label.weight[:, :, 0, 0], model.embed_label.bias
    expected = (weight.sum(1) + bias) / math.sqrt(1 + model.standardise.eps)
    torch.testing.assert_close(everywhere[0, :, 3, 4], expected)


def test_label_diffusion_without_labels_is_an_error() -> None:
    bev, depth, noise = maps()
    with pytest.raises(DataError, match=r"denoise is label.*no labels"):
        refiner(denoise="label").training_forward(bev, depth, times=torch.tensor([1, 2]), noise=noise)


def test_settings_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match=r"widths: 20 is no multiple of 8"):
        refiner(widths=(8, 20, 32))
    with pytest.raises(ConfigError, match=r"sample_steps 11 is more than diffusion.num_timesteps 10"):
        refiner(sample_steps=11, num_timesteps=10)
    bev, _, noise = maps()
    with pytest.raises(ConfigError, match=r"condition sum needs the pooled depth"):
        refiner()(bev, None, noise)


@pytest.mark.parametrize("channels", [1, 6])
def test_any_number_of_channels(channels: int) -> None:
    model = DiffusionRefiner(channels, (5, 3), num_classes=1, widths=(8, 8, 8), x_t_encoding="self_attention")
    bev, depth = torch.rand(1, channels, 5, 3), torch.rand(1, 1, 5, 3)
    assert wake(model).eval()(bev, depth, torch.randn_like(bev)).shape == bev.shape


@pytest.mark.parametrize("fusion", FUSIONS)
def test_bfloat16_keeps_the_loss_in_float32(fusion: str) -> None:
    model = wake(refiner(fusion=fusion))
    refined, loss = train_once(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half_refined, half_loss = train_once(model)
    assert half_loss.dtype == refined.dtype == torch.float32
    assert half_loss.item() == pytest.approx(loss.item(), rel=0.02)
    assert half_loss.item() != loss.item()
    (half_refined.mean() + half_loss).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_positions_and_schedule_are_not_in_checkpoints() -> None:
    names = set(refiner(x_t_encoding="self_attention").state_dict())
    assert not [name for name in names if "position" in name or "diffusion." in name or "rates" in name]
    assert "standardise.running_var" in names


def test_export_with_a_fixed_number_of_steps() -> None:
    model = wake(refiner(x_t_encoding="self_attention")).eval()
    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    program = torch.export.export(model, maps(2), dynamic_shapes=(batch, batch, batch))
    inputs = maps(3, seed=9)
    torch.testing.assert_close(program.module()(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)


def test_the_noise_predictor_learns() -> None:
    """Smooth maps, 150 small steps: Ldiff below half of its start."""
    torch.manual_seed(0)
    size = (12, 16)
    bev = F.interpolate(torch.randn(4, C, 3, 4), size=size, mode="bicubic")
    depth = torch.rand(4, 1, *size)
    model = DiffusionRefiner(C, size, num_classes=K, widths=(16, 16, 32))
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    losses = []
    for _ in range(150):
        times, noise = torch.randint(1000, (4,)), torch.randn(4, C, *size)
        _, loss = model.training_forward(bev, depth, times=times, noise=noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) / 20 < 0.5 * losses[0]
