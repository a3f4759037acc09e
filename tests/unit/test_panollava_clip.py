"""CLIP-S of answers: a tiny random CLIP in a folder, scores worked out by hand, and wrong folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pano_toy import TOWER
from pano_toy import config as small
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from omma.errors import ConfigError
from omma.systems.panollava import clip
from omma.systems.panollava.config import PanoConfig
from omma.systems.panollava.small_tokenizer import SMALL_TOKENIZER
from omma.systems.panollava.task import PanoTask

TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 20}  # fmt: skip
VISION = {**{k: TEXT[k] for k in list(TEXT)[:4]}, "image_size": 16, "patch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(SMALL_TOKENIZER), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    text = TEXT | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
    CLIPModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def views() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def test_scores_of_answers(folder: Path) -> None:
    scorer = clip.load_scorer(str(folder), torch.device("cpu"))
    assert clip.load_scorer(str(folder), torch.device("cpu")) is scorer
    answers = ["a red car", "a long answer " * 40]
    found = scorer.scores(views(), answers, [["a red car", "a tree"], []])
    texts, images = scorer.texts(answers), scorer.images(views()[0])
    cosine = torch.nn.functional.cosine_similarity(images, texts[:1])
    assert found["clip_s"][0] == pytest.approx(float((2.5 * cosine.clamp(min=0)).mean()), rel=1e-5)
    own = found["clip_s"][0]
    assert found["ref_clip_s"] == [pytest.approx(2 * own / (1 + own), rel=1e-2)]  # padded


def test_empty_answers_score_nothing(folder: Path) -> None:
    scorer = clip.load_scorer(str(folder), torch.device("cpu"))
    found = scorer.scores(views(), ["", "a tree"], [["a tree"], ["a tree"]])
    assert found["clip_s"][0] == found["ref_clip_s"][0] == 0


def task(**generate: Any) -> PanoTask:
    recipe = small(generate={"answers": True, "max_new_tokens": 3, **generate}).model_dump()
    torch.manual_seed(0)
    return PanoTask(PanoConfig.model_validate(recipe)).eval()


def test_the_evaluation_has_them_or_says_why_not(folder: Path) -> None:
    scored = task(clip=str(folder))
    meters = scored.meters()
    batch = scored.example_batch(2)
    with torch.no_grad():
        scored.validation_step(batch, meters)
    values = {name: meters[name].compute()[name] for name in clip.NAMES}
    answers = [answer.prediction for answer in meters["answers"].answers()]
    expected = clip.load_scorer(str(folder), scored.device).scores(
        batch["views"], answers, batch["references"]
    )
    for name in clip.NAMES:
        assert values[name] == pytest.approx(sum(expected[name]) / 2)
    assert set(clip.NAMES).isdisjoint(scored.unavailable())
    assert "clip_s by" in scored.setting()
    plain = task()
    assert set(clip.NAMES).isdisjoint(plain.meters())
    assert plain.unavailable()["clip_s"].endswith("system.generate.clip=FOLDER")
    assert not any("clip" in name for name in scored.state_dict())


def test_folders_that_are_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gone: no such folder"):
        task(clip=str(tmp_path / "gone")).meters()
    with pytest.raises(ConfigError, match="cannot be read"):
        clip.load_scorer(str(tmp_path), torch.device("cpu"))
    from transformers import AutoConfig, AutoModel

    kind = dict(TOWER)
    AutoModel.from_config(AutoConfig.for_model(kind.pop("model_type"), **kind)).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_file=str(SMALL_TOKENIZER)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="compares no images with texts"):
        clip.load_scorer(str(tmp_path), torch.device("cpu"))
