"""The diagnosis of answers and tokens: each kind of wrong model is named first, a sound one passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from pano_toy import LANGUAGE, TOWER
from PIL import Image
from torch import Tensor

from omma.core.caption_meter import CaptionMeter
from omma.engine.diagnosis import Diagnosis, Options
from omma.errors import Finding
from omma.systems.panollava import diagnose, likelihood
from omma.systems.panollava.answer_checks import (
    CHANGES,
    GREY,
    OTHER,
    OWN,
    QUESTION,
    SHUFFLED,
    Asked,
    Seen,
    judge,
)
from omma.systems.panollava.config import PanoConfig
from omma.systems.panollava.data import build
from omma.systems.panollava.likelihood import Written, answer_losses, encode_views, write_answers
from omma.systems.panollava.samples import Collate, PanoSamples
from omma.systems.panollava.task import PanoTask

IMAGES, SIZE = 6, (32, 64)
QUERIES = ("Which colour is to the left?", "weather")


def config(root: Path, stage: str = "finetune") -> PanoConfig:
    system = {
        "stage": stage,
        "vision": {"name": "random", "config": TOWER},
        "language": {"name": "random", "config": LANGUAGE},
        "resampler": {"name": "mlp", "width": 40, "norm": "layer"},
        "generate": {"max_new_tokens": 6},
    }
    data = {"root": str(root), "views": {"image_size": (32, 32)}}
    return PanoConfig.model_validate({"system": system, "data": data})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise whose halves have other colours, so that views differ."""
    folder = tmp_path_factory.mktemp("data")
    lines = ["url,query,annotation"]
    for number in range(IMAGES):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (4, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, SIZE[::-1]))
        lines += [f"{number}.png,{query},answer {number} of {query}" for query in QUERIES]
    for split in ("train", "valid"):
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def make(root: Path, stage: str = "finetune") -> tuple[PanoTask, PanoSamples, Collate]:
    torch.manual_seed(0)
    task = PanoTask(config(root, stage)).eval()
    samples, collate = build(task.config, "val", augment=False)
    return task, samples, collate


def run(
    made: tuple[PanoTask, PanoSamples, Collate], out: Path, *, draw: bool = False, **options: Any
) -> Diagnosis:
    wanted = Options("name", out, **({"vis_num": 1} | options))
    with patch.object(diagnose._Look, "_draw", diagnose._Look._draw if draw else lambda look: None):
        return diagnose.run(*made, wanted)


def asked(number: int, losses: dict[str, float], answers: dict[str, str], *, stopped: bool = True) -> Asked:
    return Asked(
        f"t:{number}",
        QUERIES[number % 2],
        (f"answer {number}",),
        number % 2 == 0,
        dict.fromkeys(CHANGES, 2.0) | {OWN: 1.0} | losses,
        {name: Written(f"{name} {number}", stopped) for name in CHANGES}
        | {name: Written(text.format(number), stopped) for name, text in answers.items()},
    )


def judged(losses: dict[str, float], answers: dict[str, str], *, stopped: bool = True) -> list[Finding]:
    seen = Seen("finetune", CaptionMeter(), 8, vocabulary=1000)
    seen.asked = [asked(number, losses, answers, stopped=stopped) for number in range(8)]
    return judge(seen, "name")


def tokens_judged(means: np.ndarray, retrieval: float, spread: float = 0.5, stage: str = "vision") -> list:
    seen = Seen(stage, CaptionMeter(), 8)
    for one in means:
        seen.means.append(one)
        seen.spreads.append(spread)
        seen.retrieval.append(retrieval)
        seen.chance.append(0.1)
        seen.cosines.append((0.8, 0.1))
    return judge(seen, "name")


def test_a_sound_model_has_no_complaint() -> None:
    assert judged({}, {}) == []
    assert tokens_judged(np.random.default_rng(0).normal(size=(5, 8, 16)), 0.6) == []


@pytest.mark.parametrize(
    ("losses", "answers", "severity", "title"),
    [
        ({OWN: float("nan")}, {}, "error", "tokens or losses are not finite"),
        (
            dict.fromkeys(CHANGES, 6.9),
            {},
            "error",
            "expected answers are no likelier than blindly drawn words",
        ),
        (
            {OTHER: 1.0, GREY: 1.0},
            {OTHER: f"{OWN} {{}}", GREY: f"{OWN} {{}}"},
            "error",
            "answers do not depend on the picture",
        ),
        ({OTHER: 1.001}, {}, "warning", "answers hardly gain from the picture"),
        ({SHUFFLED: 1.0}, {}, "error", "the order of the views does not reach the language model"),
        ({SHUFFLED: 1.001}, {}, "warning", "answers about directions do not use the order of the views"),
        ({QUESTION: 1.0}, {QUESTION: f"{OWN} {{}}"}, "error", "answers do not depend on the question"),
        ({}, {QUESTION: f"{OWN} {{}}"}, "warning", "answers hardly gain from the question"),
        ({}, {OWN: "a street"}, "error", "one answer is given to nearly everything"),
        ({}, {OWN: ""}, "error", "answers are empty"),
    ],
)
def test_first_finding_about_answers(
    losses: dict[str, float], answers: dict[str, str], severity: str, title: str
) -> None:
    first = judged(losses, answers)[0]
    assert (first.severity, first.title) == (severity, title)
    assert first.evidence
    assert first.fix


def test_answers_that_never_stop() -> None:
    first = judged({}, {}, stopped=False)[0]
    assert (first.severity, first.title) == ("error", "answers do not stop")
    assert "expected 2" in first.evidence


def test_first_finding_about_tokens() -> None:
    rng = np.random.default_rng(0)
    rich, flat = rng.normal(size=(5, 8, 16)), np.ones((5, 8, 16)) + 1e-4 * rng.normal(size=(5, 8, 16))
    assert tokens_judged(flat, 0.6)[0].title == "the image tower's tokens have collapsed"
    assert tokens_judged(rich, 0.6, spread=0.001)[0].title == "the image tower's tokens have collapsed"
    chance = tokens_judged(rich, 0.1)[0]
    assert (chance.severity, chance.title) == ("error", "overlapping views are no more alike than chance")
    assert tokens_judged(rich, 0.1, stage="finetune")[0].severity == "warning"


def test_untrained_run_and_its_pictures(root: Path, tmp_path: Path) -> None:
    made = make(root)
    result = run(made, tmp_path, draw=True)
    assert [finding.title for finding in result.model] == [
        "expected answers are no likelier than blindly drawn words"
    ]
    sections = {name: "\n".join(lines) for name, lines in result.sections.items()}
    assert sections["config sanity"] == "samples: 12 readable of 12 chosen, 12 in the split"
    assert "12 questions, 2 different ones, 6 speak of a direction" in sections["GT distribution"]
    assert all(change in sections["prediction distribution"] for change in CHANGES)
    assert f"{IMAGES * 8} views' mean tokens" in sections["tokens"]
    for name in (diagnose.BY_CHANGE, diagnose.TOKENS):
        assert np.asarray(Image.open(tmp_path / name)).std() > 5
    names = [file.name for file in result.figures]
    assert len([name for name in names if name.startswith("worst_")]) == 4
    assert all(file.is_file() for file in result.figures)


def test_a_collapsed_tower_is_named_first(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(root)
    whole = likelihood.encode_views

    def flat(task: PanoTask, batch: dict[str, Any]) -> Tensor:
        return torch.ones_like(whole(task, batch))

    monkeypatch.setattr(diagnose, "encode_views", flat)
    titles = [finding.title for finding in run(made, tmp_path).model]
    assert titles[:2] == [
        "the image tower's tokens have collapsed",
        "overlapping views are no more alike than chance",
    ]


def test_stage_vision_looks_at_tokens_alone(root: Path, tmp_path: Path) -> None:
    result = run(make(root, "vision"), tmp_path, num_samples=4)
    assert [finding for finding in result.model if finding.severity == "error"] == []
    assert result.sections["metrics"] == ["no answers in stage vision"]
    assert "tokens that find their match in the next view" in "\n".join(result.sections["tokens"])


def test_labels_alone_and_unreadable_pictures(root: Path, tmp_path: Path) -> None:
    made = make(root)
    made[1].questions[3].image.rename(root / "away.png")
    try:
        result = run(made, tmp_path, probe_only=True)
    finally:
        (root / "away.png").rename(made[1].questions[3].image)
    assert result.data[0].title == "2 of 12 samples cannot be read"
    assert result.model == []
    assert not result.figures


def test_losses_are_those_of_the_network_and_apart(root: Path) -> None:
    task, samples, collate = make(root)
    batch = collate([samples[0], samples[1], samples[4]])
    tokens = encode_views(task, batch)
    losses = answer_losses(task.model, tokens, batch)
    for place, index in enumerate((0, 1, 4)):
        single = collate([samples[index]])
        with torch.no_grad():
            expected = task.training_step(single, None)["lm_loss"]
        torch.testing.assert_close(losses[place], expected, rtol=1e-4, atol=1e-5)
    batch["labels"][1] = -100
    again = answer_losses(task.model, tokens, batch)
    assert again.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(again[[0, 2]], losses[[0, 2]])


def test_written_answers_are_those_of_the_evaluation(root: Path) -> None:
    task, samples, collate = make(root)
    batch = collate([samples[0], samples[5]])
    texts = [answer.text for answer in write_answers(task, encode_views(task, batch), batch)]
    assert texts == [task.predict(collate([samples[index]])).meta["answer"] for index in (0, 5)]
