from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from omma.data.dataset import Samples
from omma.data.loader import Loader, to_device
from omma.data.sampler import TrainBatches
from omma.errors import DataError
from toy import ToySamples, toy_collate

CPU = torch.device("cpu")


class Broken(ToySamples):
    def load(self, index: int, rng: np.random.Generator) -> dict:
        if index == 3:
            raise DataError(
                "meta.json: camera CAM_BACK has a 3x4 intrinsic (sample 3)", hint="run omma doctor"
            )
        return super().load(index, rng)


class Worker(ToySamples):
    """Each sample says what its process is like."""

    def load(self, index: int, rng: np.random.Generator) -> dict:
        import cv2

        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        return {"threads": (torch.get_num_threads(), cv2.getNumThreads()), "draw": float(rng.random())}


def _refuse(samples: list) -> dict:
    raise DataError("sizes differ")


def _keep(samples: list) -> dict:
    return {"samples": samples}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("collate", [toy_collate, _refuse])
def test_a_data_error_arrives_as_it_was(workers, collate):
    """One clear line with its hint, not a traceback wrapped in another exception's text."""
    loader = Loader(Broken(8), collate, [[0, 3]], workers=workers, device=CPU)
    with pytest.raises(DataError) as caught:
        list(loader)
    if collate is toy_collate:
        assert caught.value.message == "meta.json: camera CAM_BACK has a 3x4 intrinsic (sample 3)"
        assert caught.value.hint == "run omma doctor"
    assert "Traceback" not in str(caught.value)
    assert "Traceback" in caught.value.__notes__[0]


def test_workers_ignore_signals_and_use_one_thread():
    (batch,) = Loader(Worker(2), _keep, [[0, 1]], workers=1, device=CPU)
    assert [sample["threads"] for sample in batch["samples"]] == [(1, 1), (1, 1)]


def test_an_exiting_interpreter_does_not_wait_for_its_workers():
    """Such as those of a loader that the traceback of an error still refers to."""
    code = (
        "import torch, toy; from omma.data.loader import Loader\n"
        "cpu, batches = torch.device('cpu'), [[0, 1]] * 9\n"
        "kept = iter(Loader(toy.ToySamples(8), toy.toy_collate, batches, workers=2, device=cpu))\n"
        "next(kept)"
    )
    folder = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=60)


@pytest.mark.parametrize("start_method", ["spawn", "forkserver", "fork"])
def test_samples_do_not_depend_on_the_worker(start_method):
    batches = TrainBatches(8, 4, num_steps=4)
    plain = list(Loader(ToySamples(8), toy_collate, batches, workers=0, device=CPU))
    loaded = list(
        Loader(ToySamples(8), toy_collate, batches, workers=1, device=CPU, start_method=start_method)
    )
    assert [batch["token"] for batch in plain] == [batch["token"] for batch in loaded]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(plain, loaded, strict=True))


def test_augmentation_differs_between_epochs_and_repeats_for_a_key():
    samples: Samples = ToySamples(4)
    assert torch.equal(samples[0, 1]["image"], samples[0, 1]["image"])
    assert not torch.equal(samples[0, 1]["image"], samples[1, 1]["image"])


def test_loading_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(Loader(ToySamples(4), toy_collate, [[0, 1]], workers=0, device=CPU))
    assert torch.equal(torch.rand(3), expected)


def test_to_device_moves_tensors_in_any_nesting():
    meta = torch.device("meta")
    moved = to_device({"a": [torch.ones(2), {"b": (torch.ones(1), "text")}], "n": 3}, meta)
    assert moved["a"][0].is_meta
    assert moved["a"][1]["b"][0].is_meta
    assert moved["a"][1]["b"][1] == "text"
    assert moved["n"] == 3


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
def test_closing_ends_the_workers(start_method):
    """Also in the middle of an epoch and while something still refers to the iterator."""
    others = set(multiprocessing.active_children())
    batches = [[0, 1]] * 50
    loader = Loader(ToySamples(8), toy_collate, batches, workers=2, device=CPU, start_method=start_method)
    kept = iter(loader)
    next(kept)
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    loader.close()
    assert not any(worker.is_alive() for worker in workers)
    Loader(ToySamples(8), toy_collate, batches, workers=0, device=CPU).close()
