"""The end-to-end proof: a model learns from images through the geometry, and not without it."""

import pytest
import torch

import omma
from omma.commands.world import make_world
from omma.systems import get

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The demo's data set."""
    options = dict(get("lss").demo.options)
    height, width = options.pop("image_size")
    out = tmp_path_factory.mktemp("learning") / "data"
    return make_world("simbev-seed", out, image_size=f"{height}x{width}", quiet=True, **options)


def _held_out_iou(data, runs, **settings) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        settings = {"data.root": str(data), "train.length": 300, "train.workers": 0, **settings}
        run = omma.train("lss/demo", runs_dir=str(runs), quiet=True, **settings)
        return omma.evaluate(run).metrics["iou"]
    finally:
        torch.set_num_threads(threads)


def test_held_out_iou_needs_the_right_extrinsics(data, tmp_path):
    """300 steps of the demo (it takes 504): well above 0.25 as it is, less than half of it inverted."""
    right = _held_out_iou(data, tmp_path, name="right")
    inverted = _held_out_iou(data, tmp_path, name="inverted", **{"data.invert_extrinsics": True})
    assert right > 0.25
    assert inverted < right / 2
