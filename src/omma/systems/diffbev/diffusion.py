"""Gaussian diffusion: the noise schedule, what a network may be asked for, and DDIM sampling without noise.

Ho et al. (arXiv 2006.11239), Song et al. (arXiv 2010.02502, eta = 0), Salimans and Ho (arXiv 2202.00512, v).
Written here and not taken from `diffusers`, whose schedulers come with six more dependencies and keep the
sampling state in the scheduler, which does not export.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from omma.errors import ConfigError

Prediction = Literal["eps", "v", "x0"]

LIMIT = 5.0  # of clean values: they have unit variance
REFERENCE_STEPS = 1000  # the schedule is linear over so many: beta from 1e-4 to 2e-2


class Diffusion(nn.Module):
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, for t from 0 (almost clean) to num_timesteps - 1 (noise).

    Args:
        num_timesteps: T. Any T runs along the same curve of a as 1000 steps of linear beta do, at T points.
        sample_steps: network calls of `sample`, at most T.
        prediction: what the network tells: the noise "eps", the clean map "x0", or "v" between the two.

    Raises:
        ConfigError: more sample steps than timesteps.
    """

    signal: Tensor
    sigma: Tensor
    schedule: Tensor

    def __init__(self, num_timesteps: int, sample_steps: int, prediction: Prediction) -> None:
        super().__init__()
        if sample_steps > num_timesteps:
            raise ConfigError(
                f"diffusion.sample_steps {sample_steps} is more than diffusion.num_timesteps {num_timesteps}",
                hint=f"take 1 to {num_timesteps} sample steps",
            )
        self.num_timesteps, self.sample_steps, self.prediction = num_timesteps, sample_steps, prediction
        alpha_bar = _alpha_bar(num_timesteps)
        self.register_buffer("signal", _float32(np.sqrt(alpha_bar)), persistent=False)
        self.register_buffer("sigma", _float32(np.sqrt(1 - alpha_bar)), persistent=False)
        times = torch.tensor(sample_times(num_timesteps, sample_steps))
        self.register_buffer("schedule", times, persistent=False)

    def noised(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """x_t (B, C, Z, X) of x_0 and standard normal noise of that shape at `times`, int64 (B,) or (1,)."""
        signal, sigma = self._levels(times)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the network should tell about `noised(clean, noise, times)`."""
        if self.prediction == "eps":
            return noise
        if self.prediction == "x0":
            return clean
        signal, sigma = self._levels(times)
        return signal * noise - sigma * clean

    def denoised(self, predicted: Tensor, x_t: Tensor, times: Tensor) -> Tensor:
        """x_0 within +-5 that the network's `predicted` of x_t means."""
        return self._clean(predicted, x_t, times).clamp(-LIMIT, LIMIT)

    def sample(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor) -> Tensor:
        """Clean map from noise, in `sample_steps` calls; the same noise gives the same map.

        The clean map is clipped at each step, the noise that goes on with it is not: derived from the clipped
        map it would take over the errors that clipping removes.

        Args:
            predict: the network's answer to x_t (B, C, Z, X) at times, int64 (1,).
            noise: standard normal, (B, C, Z, X).
        """
        x_t = noise.float()
        for step in range(self.sample_steps):
            times = self.schedule[step : step + 1]
            clean = self._clean(predict(x_t, times).float(), x_t, times)
            clipped = clean.clamp(-LIMIT, LIMIT)
            if step + 1 < self.sample_steps:
                signal, sigma = self._levels(times)
                x_t = self.noised(clipped, (x_t - signal * clean) / sigma, self.schedule[step + 1 : step + 2])
        return clipped

    def _clean(self, predicted: Tensor, x_t: Tensor, times: Tensor) -> Tensor:
        signal, sigma = self._levels(times)
        if self.prediction == "eps":
            return (x_t - sigma * predicted) / signal
        return signal * x_t - sigma * predicted if self.prediction == "v" else predicted

    def _levels(self, times: Tensor) -> tuple[Tensor, Tensor]:
        return self.signal[times].view(-1, 1, 1, 1), self.sigma[times].view(-1, 1, 1, 1)


def sample_times(num_timesteps: int, sample_steps: int) -> list[int]:
    """Times of the network calls, T - 1 - floor(T i / S) for i < S: 999, 666 and 333 for three of 1000.

    From the last call's time the map goes to clean; a call at t = 0 would have almost nothing to do.
    """
    return [num_timesteps - 1 - num_timesteps * i // sample_steps for i in range(sample_steps)]


def _alpha_bar(num_timesteps: int) -> np.ndarray:
    log_alpha_bar = np.log1p(-np.linspace(1e-4, 2e-2, REFERENCE_STEPS)).cumsum()
    at = np.arange(1, num_timesteps + 1) * REFERENCE_STEPS / num_timesteps
    return np.exp(np.interp(at, np.arange(REFERENCE_STEPS + 1), np.concatenate([[0.0], log_alpha_bar])))


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()
