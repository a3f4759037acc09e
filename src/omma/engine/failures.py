"""Failures inside PyTorch, said in one line each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from omma.config.base import Optim
from omma.engine.ranks import gather_objects
from omma.errors import NonFiniteError, OmmaError, OutOfMemoryError

_PEER_GONE = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Socket closed",
    "remote process exited",
)


@dataclass
class Activity:
    """What is being done, for a message: "in step 3"."""

    text: str


@contextmanager
def explained(activity: Activity, device: torch.device, memory_keys: Sequence[str]) -> Iterator[None]:
    """Turn what PyTorch raises inside the block into errors with a remedy.

    Args:
        activity: what is being done.
        device: where.
        memory_keys: overrides that lower memory, in order of effect.

    Raises:
        OutOfMemoryError: no memory on the GPU or the machine.
        OmmaError: a data-loading process or another training process has died.
    """
    try:
        yield
    except RuntimeError as error:
        text, when = str(error), activity.text
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
            raise _out_of_memory(when, device, memory_keys) from error
        if text.startswith("DataLoader worker"):
            raise OmmaError(
                f"a data-loading process died {when}: {text.splitlines()[0]}",
                "most often the machine's memory is full: lower train.workers or train.batch_size; "
                "in a container give more shared memory (docker --shm-size=8g)",
            ) from error
        if any(sign in text for sign in _PEER_GONE):
            raise OmmaError(
                f"another process of the training stopped {when}; its message tells why"
            ) from error
        raise


def _out_of_memory(doing: str, device: torch.device, memory_keys: Sequence[str]) -> OutOfMemoryError:
    where = "the machine"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        where = f"{device} ({(total - free) / 2**30:.1f} of {total / 2**30:.1f} GiB in use)"
    keys = memory_keys or (
        "train.batch_size=1",
        "train.activation_checkpointing=true",
        "train.precision=bf16-mixed",
    )
    return OutOfMemoryError(
        f"{where} ran out of memory {doing}", "in order of effect for this recipe: " + "  ".join(keys)
    )


def check_finite(
    step: int,
    values: Mapping[str, float],
    micro_terms: Tensor,
    tokens: Sequence[Sequence[str]],
    optim: Optim,
    *,
    gradient: bool,
) -> None:
    """Stop before an update that would spoil the weights; all processes see the same values, so all stop.

    Args:
        step: the step, counted from 1.
        values: "loss", its terms and "grad_norm" over all processes.
        micro_terms: this process's loss and terms by micro-step, (M, 1 + terms).
        tokens: this process's sample names by micro-step.
        optim: the recipe's section, to suggest a change of it.
        gradient: whether the gradient has to be finite too.

    Raises:
        NonFiniteError: naming the term and the samples of the micro-steps at fault.
    """
    if math.isfinite(values["loss"]) and (math.isfinite(values["grad_norm"]) or not gradient):
        return
    at_fault = ~micro_terms[:, 0].isfinite() | math.isfinite(values["loss"])
    own = [name for names, bad in zip(tokens, at_fault.tolist(), strict=True) if bad for name in names]
    everyones = [name for of_rank in gather_objects(own) for name in of_rank]
    raise _non_finite(step, values, everyones, optim)


def _non_finite(
    step: int, values: Mapping[str, float], tokens: Sequence[str], optim: Optim
) -> NonFiniteError:
    terms = {name: value for name, value in values.items() if name != "grad_norm"}
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    at_fault = [name for name in bad if name != "loss"] or bad
    if bad:
        what = f"the loss is not finite at step {step} (term {', '.join(at_fault)} = {terms[at_fault[0]]})"
    else:
        norm = values["grad_norm"]
        what = f"the gradient is not finite at step {step} (norm {norm}; the loss is {terms['loss']:.4g})"
    clip = 5.0 if optim.grad_clip is None else optim.grad_clip / 2
    return NonFiniteError(
        f"{what}; nothing was updated. Samples: {', '.join(tokens)}",
        f"try optim.lr={optim.lr / 10:g}\n  or optim.grad_clip={clip:g}\n"
        "  or check these samples: `omma doctor` on the recipe",
    )
