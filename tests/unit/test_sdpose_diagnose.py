"""The diagnosis of predicted joints: each kind of wrong predictor is named first, a sound one passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from coco_files import config, content, detection, joints_of, person, write_json, write_split
from PIL import Image
from torch import Tensor

from omma.core.heatmaps import encode
from omma.core.keypoints import FLIP_PAIRS, mirrored_order
from omma.engine.diagnosis import Diagnosis, Options
from omma.errors import Finding
from omma.runs.console import RunLog
from omma.systems.sdpose.data import build
from omma.systems.sdpose.diagnose import BY_JOINT, PEAKS, _Look, run
from omma.systems.sdpose.model import SDPose
from omma.systems.sdpose.prediction_checks import Person, Seen, distillation, shares
from omma.systems.sdpose.samples import PersonSamples, collate
from omma.systems.sdpose.studies import cycles
from omma.systems.sdpose.task import SDPoseTask

PEOPLE = 12
Maps = Callable[[dict[str, Any], int], Tensor]


def pose(number: int) -> dict[str, Any]:
    """A person whose joints are nobody else's; the image's id is the annotation's."""
    rng = np.random.default_rng(number)
    box = (10 + 4 * number, 10, 60, 90)
    joints = joints_of(box, absent=[4] if number % 2 else [], hidden=[9])
    joints[:, :2] += np.where(joints[:, 2:] > 0, rng.integers(-6, 7, (17, 2)), 0)
    joints[[1, 2], 0] = [45 + 4 * number, 36 + 4 * number]
    return person(number, number, box, joints=joints)


@pytest.fixture
def samples(tmp_path: Path) -> PersonSamples:
    for split in ("train", "val"):
        numbers = range(1, PEOPLE + 1)
        write_split(tmp_path / "data", split, content([pose(n) for n in numbers], images=tuple(numbers)))
    return build(settings(tmp_path / "data"), "val", augment=False)[0]


def settings(root: Path, **sections: Any) -> Any:
    return config(root, evaluation={"flip": False}, train={"workers": 0}, **sections)


@pytest.fixture
def task(samples: PersonSamples, tmp_path: Path) -> SDPoseTask:
    torch.manual_seed(0)
    return SDPoseTask(settings(tmp_path / "data")).eval()


def diagnose(task: SDPoseTask, samples: PersonSamples, out: Path, **options: Any) -> Diagnosis:
    """Without pictures unless some are asked for: figures take seconds."""
    wanted = Options("name", out / "out", **({"vis_num": 0} | options))
    with patch.object(_Look, "_draw", _Look._draw if wanted.vis_num else lambda look: None):
        return run(task, samples, collate, wanted)


def predict(monkeypatch: pytest.MonkeyPatch, task: SDPoseTask, samples: PersonSamples, maps: Maps) -> None:
    """Let the network know whom it sees and answer with `maps(batch, cycle)`; its tokens stay."""
    whole = collate([samples[index] for index in range(len(samples))])
    cycles_of = SDPose.forward_cycles

    def answer(image: Tensor, cycle: int) -> Tensor:
        pixels = (image * task.std + task.mean).round()
        places = [int((whole["image"].float() - one).abs().flatten(1).sum(1).argmin()) for one in pixels]
        batch = {name: value[places] for name, value in whole.items() if isinstance(value, Tensor)}
        return maps(batch, cycle)

    def forward(model: SDPose, image: Tensor) -> Tensor:
        return answer(image, 1)

    def forward_cycles(model: SDPose, image: Tensor, *, cycles: int, attention: bool = False) -> list[Any]:
        found = cycles_of(model, image, cycles=cycles, attention=attention)
        return [
            one._replace(heatmaps=answer(image, number) + 0 * one.heatmaps)
            for number, one in enumerate(found, 1)
        ]

    monkeypatch.setattr(SDPose, "forward", forward)
    monkeypatch.setattr(SDPose, "forward_cycles", forward_cycles)


def peaks_at(joints: Tensor, height: Tensor | float = 1.0) -> Tensor:
    maps = encode(joints, torch.ones(joints.shape[:2]), (16, 12), encoding="unbiased", sigma=2.0)[0]
    return maps * torch.as_tensor(height).expand(joints.shape[:2])[..., None, None]


def perfect(batch: dict[str, Any], cycle: int) -> Tensor:
    return peaks_at(batch["joints"])


def _noisy(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Joints of which a third are far away, and which ones."""
    generator = torch.Generator().manual_seed(int(batch["image_id"].sum()))
    far = torch.rand(batch["joints"].shape[:2], generator=generator) < 0.3
    elsewhere = torch.rand(batch["joints"].shape, generator=generator) * torch.tensor([44.0, 60.0])
    return torch.where(far[..., None], elsewhere, batch["joints"]), far


def honest(batch: dict[str, Any], cycle: int) -> Tensor:
    """A third of the joints is wrong, and their peaks are low."""
    joints, far = _noisy(batch)
    return peaks_at(joints, torch.where(far, 0.3, 0.9))


def overconfident(batch: dict[str, Any], cycle: int) -> Tensor:
    joints, far = _noisy(batch)
    heights = torch.rand(far.shape, generator=torch.Generator().manual_seed(1000))
    return peaks_at(joints, 0.4 + 0.5 * heights)


def constant(batch: dict[str, Any], cycle: int) -> Tensor:
    return peaks_at(torch.full_like(batch["joints"], 24.0))


def empty(batch: dict[str, Any], cycle: int) -> Tensor:
    return peaks_at(batch["joints"], 0.02)


def low(batch: dict[str, Any], cycle: int) -> Tensor:
    return peaks_at(batch["joints"], 0.15)


def mirrored(batch: dict[str, Any], cycle: int) -> Tensor:
    return peaks_at(batch["joints"])[:, mirrored_order()]


def legs_mixed_up(batch: dict[str, Any], cycle: int) -> Tensor:
    return peaks_at(batch["joints"])[:, mirrored_order(FLIP_PAIRS[5:7])]


def infinite(batch: dict[str, Any], cycle: int) -> Tensor:
    return perfect(batch, cycle) / 0.0


def later_is_better(batch: dict[str, Any], cycle: int) -> Tensor:
    return honest(batch, cycle) if cycle == 1 else perfect(batch, cycle)


def wrong(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity in ("error", "warning")]


@pytest.mark.parametrize("maps", [perfect, honest])
def test_sound_predictors_have_no_complaint(
    monkeypatch: pytest.MonkeyPatch, task: SDPoseTask, samples: PersonSamples, tmp_path: Path, maps: Maps
) -> None:
    predict(monkeypatch, task, samples, maps)
    result = diagnose(task, samples, tmp_path)
    assert wrong([*result.data, *result.model]) == []
    assert [finding.title for finding in result.model] == ["distillation"]


@pytest.mark.parametrize(
    ("maps", "severity", "title"),
    [
        (infinite, "error", "heatmaps are not finite"),
        (constant, "error", "the prediction is nearly the same for everybody"),
        (empty, "warning", "the heatmaps are nearly empty"),
        (low, "warning", "most joints that are found do not count for the score"),
        (mirrored, "error", "left and right are mirrored"),
        (legs_mixed_up, "warning", "left and right are mixed up"),
        (overconfident, "warning", "the heights of peaks say nothing about errors"),
    ],
)
def test_first_finding_about_predictions(
    monkeypatch: pytest.MonkeyPatch,
    task: SDPoseTask,
    samples: PersonSamples,
    tmp_path: Path,
    maps: Maps,
    severity: str,
    title: str,
) -> None:
    predict(monkeypatch, task, samples, maps)
    first = diagnose(task, samples, tmp_path).model[0]
    assert (first.severity, first.title) == (severity, title)
    assert first.evidence
    assert first.fix


def test_a_later_cycle_that_is_better(
    monkeypatch: pytest.MonkeyPatch, task: SDPoseTask, samples: PersonSamples, tmp_path: Path
) -> None:
    predict(monkeypatch, task, samples, later_is_better)
    result = diagnose(task, samples, tmp_path)
    titles = [finding.title for finding in result.model]
    assert titles[-1] == "later cycles are better than the first, which predicts"
    lines = "\n".join(result.sections["metrics"])
    assert "cycle 1: AP 0.5" in lines
    assert "cycle 2: AP 0.9" in lines
    assert "visual tokens of cycles 1 and 2: mean square " in lines
    found = cycles(task, task.config, samples, collate, RunLog(None, quiet=True))["cycles"]
    assert found["x"] == [1, 2, 3]
    assert found["series"]["PCK@0.1"][0] < found["series"]["PCK@0.1"][1] == 1.0
    assert isinstance(task.model, SDPose)


def test_people_with_mirrored_labels_are_listed(
    monkeypatch: pytest.MonkeyPatch, task: SDPoseTask, samples: PersonSamples, tmp_path: Path
) -> None:
    """One person of twelve: the labels are suspected, the predictor is not."""
    predict(monkeypatch, task, samples, perfect)
    samples.people.joints[3] = samples.people.joints[3][mirrored_order()]
    samples.people.joints[3][:, 2] = 2
    result = diagnose(task, samples, tmp_path)
    assert result.data[0].title == "the labels of 1 people look mirrored"
    assert samples.name(3) in result.data[0].evidence


def test_numbers_and_pictures(
    monkeypatch: pytest.MonkeyPatch, task: SDPoseTask, samples: PersonSamples, tmp_path: Path
) -> None:
    predict(monkeypatch, task, samples, honest)
    result = diagnose(task, samples, tmp_path, vis_num=2)
    sections = {name: "\n".join(lines) for name, lines in result.sections.items()}
    assert sections["config sanity"] == "samples: 12 readable of 12 chosen, 12 in the split"
    assert "labelled joints of 12 people" in sections["GT distribution"]
    assert "peaks of labelled joints" in sections["prediction distribution"]
    assert "OKS/small" in sections["metrics"]
    assert "PCK@0.1/hidden" in sections["metrics"]
    assert len(result.sections["joints"]) == 18
    assert "vis_dist_loss" in sections["loss terms"]
    for name in (PEAKS, BY_JOINT):
        assert np.asarray(Image.open(tmp_path / "out" / name)).std() > 5
    names = [file.name for file in result.figures]
    assert len([name for name in names if name.startswith("worst_")]) == 4
    assert "000000_000000000001-0.png" in names
    assert all(file.is_file() for file in result.figures)


def test_labels_alone(task: SDPoseTask, samples: PersonSamples, tmp_path: Path) -> None:
    result = diagnose(task, samples, tmp_path, probe_only=True)
    assert result.model == []
    assert result.sections["metrics"] == ["the network was not run"]
    assert not result.figures


def test_unreadable_people_do_not_stop_the_others(
    task: SDPoseTask, samples: PersonSamples, tmp_path: Path
) -> None:
    samples.people.files[2].write_bytes(b"x")
    result = diagnose(task, samples, tmp_path, probe_only=True)
    assert result.data[0].title == "1 of 12 samples cannot be read"
    assert samples.people.files[2].name in result.data[0].evidence


def test_a_detectors_boxes_are_no_labels(task: SDPoseTask, samples: PersonSamples, tmp_path: Path) -> None:
    write_json(tmp_path / "data" / "boxes.json", [detection(1, (5, 5, 30, 60), 0.5)])
    data = {"boxes": "boxes.json"}
    found, _ = build(settings(tmp_path / "data", data=data), "val", augment=False)
    result = diagnose(task, found, tmp_path)
    assert "a detector's boxes have no joints" in result.data[0].evidence
    assert "data.boxes=ground_truth" in result.data[0].fix


def test_gradients_are_those_of_the_terms(task: SDPoseTask, samples: PersonSamples, tmp_path: Path) -> None:
    """Ten times the weight is ten times the gradient; the heatmaps' stays."""

    def lines(weight: float) -> dict[str, list[float]]:
        torch.manual_seed(0)
        made = SDPoseTask(settings(tmp_path / "data", system={"distill": {"loss_weight": weight}})).eval()
        found = diagnose(made, samples, tmp_path).sections["loss terms"]
        return {line.split(":")[0]: [float(line.split()[1].strip(",")), float(line.split()[-2].strip(","))]
                for line in found}  # fmt: skip

    weak, strong = lines(1e-5), lines(1e-4)
    assert strong["vis_dist_loss"] == pytest.approx([10 * value for value in weak["vis_dist_loss"]], rel=1e-2)
    assert strong["heatmap_loss"] == weak["heatmap_loss"]


@pytest.mark.parametrize(("distilled", "severity"), [(1.0, "warning"), (0.01, "ok"), (1e-7, "info")])
def test_share_of_the_distillation(distilled: float, severity: str) -> None:
    seen = Seen((64, 48), 0.2, [], (None, None))
    seen.terms = {"heatmap_loss": 0.4, "vis_dist_loss": distilled}
    seen.gradients = {"heatmap_loss": 0.4, "vis_dist_loss": distilled}
    found = distillation(seen, "name")
    assert found is not None
    assert found.severity == severity
    assert shares(seen.terms)["heatmap_loss"] == pytest.approx(0.4 / (0.4 + distilled))


def test_errors_and_swaps_of_one_person() -> None:
    true = np.stack([np.arange(17.0) * 10, np.zeros(17)], 1)
    labelled = np.ones(17, bool)
    labelled[16] = False
    found = true[mirrored_order()]
    one = Person("a", found, true, labelled, 100.0, np.ones(17))
    assert one.swapped == (7, 7)
    np.testing.assert_allclose(one.errors[:3], [0, 0.1, 0.1])
    assert np.isnan(one.errors[16])
    assert Person("a", true, true, labelled, 100.0, np.ones(17)).swapped == (0, 7)
