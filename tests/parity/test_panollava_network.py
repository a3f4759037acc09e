"""Resamplers and whole networks of PanoLLaVA with published names against the reference's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import load_arrays, load_case
from sampled import check_sampled
from torch import Tensor

from omma.config.base import LinearSchedule, Optim, Period
from omma.engine.optim import build_optimizer, set_lr
from omma.engine.schedule import Length, lr_factor
from omma.systems.panollava.convert import load_reference, load_reference_part
from omma.systems.panollava.language import fuse
from omma.systems.panollava.model import PanoLLaVA
from omma.systems.panollava.published import PublishedModel
from omma.systems.panollava.text import PANORAMA

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "panollava"
GRID = (4, 4)
RESAMPLERS: dict[str, dict[str, Any]] = {
    "mlp_seed": {},
    "mlp_aug": {},
    "mlp_head": {},
    "mlp_head_pool": {"pool_tokens": 5, "pooling": "max"},
    "perceiver_head": {"heads": 4},
    "qformer_head": {"heads": 4},
    "spatial_pool_head": {"stride": 2},
    "c_abstractor_head": {"queries": 4},
    "bimamba_head": {},
}


def load(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    weights, arrays, meta = load_case(str(CASES / name))
    if name.startswith("resampler_") and "x" not in arrays:
        arrays["x"] = load_arrays(CASES / "resampler_mlp_seed.npz")["x"]
    return weights, arrays, meta


def tensor(arrays: dict[str, np.ndarray], key: str) -> Tensor:
    values = torch.from_numpy(arrays[key])
    return values.long() if values.dtype == torch.int16 else values


def check(ours: Tensor, arrays: dict[str, np.ndarray], name: str, rtol: float = 5e-6) -> None:
    check_sampled(ours.detach().numpy(), arrays, name, rtol)


def network(name: str, **options: Any) -> tuple[PublishedModel, dict[str, np.ndarray], list[Tensor]]:
    """The model of a Lightning file, the case's arrays, and its pixels, ids, mask and labels."""
    weights, arrays, meta = load(name)
    tied = weights["language_model.model.embed_tokens.weight"]
    lightning = {f"model.{key}": value for key, value in weights.items()}
    lightning["model.language_model.lm_head.weight"] = tied
    config = meta["config"]
    model = load_reference(
        {"state_dict": lightning}, vision=config["vision"], language=config["language"], **options
    )
    inputs = ["pixel_values", "input_ids", "attention_mask", "labels"]
    return model, arrays, [tensor(arrays, key) for key in inputs]


class TestResamplers:
    @pytest.mark.parametrize("name", list(RESAMPLERS))
    @torch.no_grad()
    def test_outputs(self, name: str) -> None:
        weights, arrays, _ = load(f"resampler_{name}")
        resampler = load_reference_part("resampler", weights, **RESAMPLERS[name])
        out = resampler(tensor(arrays, "x"), GRID)
        check(out, arrays, "y_eval" if name == "mlp_seed" else "y")
        assert out.shape[1] == resampler.count(GRID)

    def test_batch_norm_in_training(self) -> None:
        weights, arrays, _ = load("resampler_mlp_seed")
        resampler = load_reference_part("resampler", weights).train()
        tokens = tensor(arrays, "x").requires_grad_(True)
        out = resampler(tokens, GRID)
        check(out, arrays, "y_train")
        norm = resampler.layers[1]
        for name in ("running_mean", "running_var"):
            np.testing.assert_allclose(getattr(norm, name), arrays[f"{name}_after"], atol=1e-6)

    @torch.no_grad()
    def test_head_of_the_overlap_loss(self) -> None:
        weights, arrays, _ = load("vicreg_projector")
        head = load_reference_part("vicreg_projector", weights)
        check(head(tensor(arrays, "x")), arrays, "y")


class TestFirstPipeline:
    @torch.no_grad()
    def test_all_views_reach_their_sample(self) -> None:
        model, arrays, inputs = network("vlm_seed")
        tokens = model.model.encode(inputs[0])
        check(tokens, arrays, "vision_hidden")
        check(model.model.resample(tokens), arrays, "resampled")
        check(model.words(inputs[0]), arrays, "vision_tokens_full")
        loss, logits = model(*inputs)
        np.testing.assert_allclose(float(loss), arrays["loss_ar_full"], rtol=1e-6)
        check(logits[:, -32:], arrays, "logits_full_text", rtol=2e-5)

    @torch.no_grad()
    def test_its_mistake_on_demand(self) -> None:
        model, arrays, inputs = network("vlm_seed", layout="as_published")
        loss, logits = model(*inputs)
        np.testing.assert_allclose(float(loss), arrays["loss_finetune_asis"], rtol=1e-6)
        check(logits[:, 16:40], arrays, "logits_asis_first3", rtol=2e-5)

    def test_loss_at_the_labels_alone_and_its_gradients(self) -> None:
        published, arrays, inputs = network("vlm_seed")
        model: PanoLLaVA = published.model
        model.projector = published._projector(inputs[0].shape[1])
        loss, logits = model(*inputs)
        np.testing.assert_allclose(float(loss.detach()), arrays["loss_ar_full"], rtol=1e-6)
        assert len(logits) == int((inputs[3] != -100).sum())
        loss.backward()
        norms = [
            float(
                torch.stack([p.grad.double().norm() for p in part.parameters() if p.grad is not None]).norm()
            )
            for part in model.parts().values()
        ]
        np.testing.assert_allclose(norms, arrays["gradnorm_groups"], rtol=1e-4)

    def test_greedy_answers(self) -> None:
        model, arrays, inputs = network("vlm_seed")
        prompt = tensor(arrays, "prompt_ids")
        for key, penalty in (("greedy_ids", 1.0), ("greedy_ids_rep1_8", 1.8)):
            ids = model.generate(inputs[0][:1], prompt, max_new_tokens=12, repetition_penalty=penalty)
            assert ids.tolist() == arrays[key].tolist()


class TestCora:
    @torch.no_grad()
    def test_stages(self) -> None:
        model, arrays, inputs = network("vlm_head")
        assert model.options.panorama_id == 380
        tokens = model.model.encode(inputs[0])
        check(tokens, arrays, "vision_features")
        resampled = model.model.resample(tokens)
        check(resampled, arrays, "resampled")
        check(model.overlap_head(resampled[:, 1:].flatten(0, 1)), arrays, "vicreg_features")
        check(model.words(inputs[0]), arrays, "vision_tokens")
        weights = {
            f"linear.{name}": value for name, value in model.model.projector.linear.state_dict().items()
        }
        options = {"num_views": 5, "whole_first": True, "stitch": "stride_views", "position": "columns"}
        projector = load_reference_part("projector", weights, grid=GRID, **options)
        check(projector(resampled, torch.zeros(0)), arrays, "vision_tokens")

    @torch.no_grad()
    def test_fusion_and_loss(self) -> None:
        model, arrays, inputs = network("vlm_head")
        fused = model.fuse(*inputs)
        check(fused.embeds, arrays, "fused_embeds")
        assert torch.equal(fused.mask, tensor(arrays, "fused_mask"))
        assert torch.equal(fused.labels, tensor(arrays, "fused_labels"))
        loss, logits = model(*inputs)
        np.testing.assert_allclose(float(loss), arrays["loss_finetune"], rtol=1e-6)
        check(logits[:, -40:], arrays, "logits_text", rtol=2e-5)
        single, _ = model(inputs[0][:, 0], *inputs[1:])
        np.testing.assert_allclose(float(single), arrays["loss_single_view"], rtol=1e-6)

    def test_without_placeholder_the_panorama_comes_first(self) -> None:
        _, arrays, (_, ids, mask, labels) = network("vlm_head")
        keep = ids[0] != 380
        assert torch.equal(keep, ids[1] != 380)
        words, text = torch.zeros(2, 8, 4), torch.ones(2, int(keep.sum()), 4)
        fused = fuse(text, ids[:, keep], mask[:, keep], words, labels=labels[:, keep])
        assert torch.equal(fused.mask, tensor(arrays, "noplaceholder_mask"))
        assert torch.equal(fused.labels, tensor(arrays, "noplaceholder_labels"))

    def test_greedy_answer(self) -> None:
        model, arrays, inputs = network("vlm_head")
        prompt = tensor(arrays, "gen_prompt")
        ids = model.generate(inputs[0][:1], prompt, max_new_tokens=8, repetition_penalty=1.8)
        assert ids.tolist() == arrays["gen_ids"].tolist()
        assert PANORAMA not in ids

    def test_second_names_of_the_same_tensors(self) -> None:
        weights, arrays, meta = load("vlm_head")
        aliases = {
            "resampler.": "resampler_module.",
            "language_model.": "language_model_wrapper.model.",
            "projector.": "vision_to_language_projection.",
        }
        twice = dict(weights)
        for theirs, alias in aliases.items():
            twice |= {
                alias + name.removeprefix(theirs): value
                for name, value in weights.items()
                if name.startswith(theirs)
            }
        config = meta["config"]
        model = load_reference(twice, vision=config["vision"], language=config["language"])
        with torch.no_grad():
            check(model.words(tensor(arrays, "pixel_values")), arrays, "vision_tokens")


def test_optimiser_and_learning_rate() -> None:
    _, arrays, meta = load("optim_schedule")
    config = meta["config"]
    optim = Optim(
        name="adamw",
        lr=config["lr"],
        betas=tuple(config["betas"]),
        eps=config["eps"],
        weight_decay=config["wd"],
    )
    schedule = LinearSchedule(name="linear", warmup=Period(config["warmup"]), warmup_factor=0.0)
    length = Length(config["total_steps"], config["total_steps"])
    factors = [lr_factor(schedule, step, length) for step in range(config["total_steps"])]
    np.testing.assert_allclose(
        [optim.lr * factor for factor in factors], arrays["lr"], rtol=1e-12, atol=1e-20
    )
    parameter = torch.nn.Parameter(torch.from_numpy(arrays["params"][0].copy()))
    group = {"params": [parameter], "lr": optim.lr, "weight_decay": optim.weight_decay}
    optimizer = build_optimizer(optim, [group])
    for step, expected in enumerate(arrays["params"][1:], start=1):
        set_lr(optimizer, factors[step])
        optimizer.zero_grad()
        parameter.square().sum().backward()
        torch.nn.utils.clip_grad_norm_([parameter], config["clip"])
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=2e-7)
