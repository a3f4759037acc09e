"""The networks of DiffBEV: the image encoder, the views, training outputs, precision, export."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import swin_t

from omma.errors import ConfigError
from omma.systems.diffbev.config import DiffBEVData, DiffBEVSystem
from omma.systems.diffbev.fork_head import ForkHead
from omma.systems.diffbev.keys import swin_weights
from omma.systems.diffbev.model import BevSegmenter, build_model
from omma.systems.diffbev.swin import SwinBlock, SwinTransformer, WindowAttention, shift_mask
from omma.systems.diffbev.views.lift_splat import LiftSplatView
from omma.systems.diffbev.views.pon import level_ranges

SMALL: dict[str, Any] = {
    "backbone": {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4), "window": 4},
    "grid": {"x": (-4.0, 4.0, 0.5), "z": (1.0, 9.0, 0.5), "depth": (1.0, 9.0, 1.0)},
    "channels": 16,
    "head": {"planes": (16, 16), "blocks": (1, 1)},
}
SIZE = (96, 128)


def small(**settings: Any) -> BevSegmenter:
    torch.manual_seed(0)
    return build_model(DiffBEVSystem(**(SMALL | settings)), DiffBEVData(image_size=SIZE)).eval()


def inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.tensor([[100.0, 0, 64], [0, 100.0, 48], [0, 0, 1]])
    return torch.randn(batch, 3, *SIZE, generator=generator), matrix.repeat(batch, 1, 1)


def with_gradients_everywhere(model: BevSegmenter) -> BevSegmenter:
    """A new head's classifier is zero, which would stop all gradients."""
    nn.init.normal_(model.head.classifier.weight, std=0.1)
    return model


class TestSwin:
    @torch.no_grad()
    def test_is_torchvisions_where_that_pads_and_shifts(self) -> None:
        """Sides that are multiples of 4, as that needs, and of nothing else; maps larger than the window."""
        theirs = swin_t().eval()
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        ours = SwinTransformer().eval()
        loaded = ours.load_state_dict(swin_weights(theirs.state_dict()), strict=False)
        assert loaded.missing_keys == ["norms.3.weight", "norms.3.bias"]
        assert not loaded.unexpected_keys
        ours.norms["3"].load_state_dict(theirs.norm.state_dict())
        image = torch.randn(1, 3, 236, 308)
        expected = theirs.norm(theirs.features(image)).permute(0, 3, 1, 2)
        torch.testing.assert_close(ours(image)[0], expected, rtol=0, atol=2e-5)

    def test_published_sizes(self) -> None:
        """Swin-T and Swin-B without classifier, parameters as published."""
        for embed_dim, depths, num_heads, count in (
            (96, (2, 2, 6, 2), (3, 6, 12, 24), 27_519_354),
            (128, (2, 2, 18, 2), (4, 8, 16, 32), 86_743_224),
        ):
            with torch.device("meta"):
                swin = SwinTransformer(embed_dim=embed_dim, depths=depths, num_heads=num_heads)
            assert sum(p.numel() for p in swin.parameters()) == count

    @torch.no_grad()
    @pytest.mark.parametrize("size", [(32, 32), (33, 70), (1, 1)])
    def test_any_image_size(self, size: tuple[int, int]) -> None:
        swin = SwinTransformer(embed_dim=8, num_heads=(1, 2, 2, 4), out_indices=(0, 1, 2, 3)).eval()
        maps = swin(torch.randn(2, 3, *size))
        for stage, feature_map in enumerate(maps):
            stride = 4 * 2**stage
            expected = (2, 8 * 2**stage, *(-(-side // stride) for side in size))
            assert tuple(feature_map.shape) == expected

    def test_windows_see_nothing_else(self) -> None:
        """Without a shift a token's gradient stays in its window; with one, in the shifted window."""
        for shift, rows in ((0, (4, 8)), (2, (2, 6))):
            block = SwinBlock(8, 2, window=4, shift=shift, drop_path=0.0)
            x = torch.randn(1, 12, 12, 8, requires_grad=True)
            mask = shift_mask((12, 12), 4) if shift else None
            block(x, mask)[0, 5, 5].sum().backward()
            reached = (x.grad.abs().sum(-1)[0] > 1e-12).nonzero()
            assert (reached.min(), reached.max() + 1) == rows

    def test_the_roll_brings_no_far_tokens_together(self) -> None:
        block = SwinBlock(8, 2, window=4, shift=2, drop_path=0.0)
        x = torch.randn(1, 8, 8, 8, requires_grad=True)
        block(x, shift_mask((8, 8), 4))[0, 0, 0].sum().backward()
        reached = (x.grad.abs().sum(-1)[0] > 1e-12).nonzero()
        assert reached.max() == 1

    def test_attention_is_softmax_of_scores_and_bias(self) -> None:
        attention = WindowAttention(8, 2, 3)
        tokens = torch.randn(6, 9, 8)
        mask = torch.where(torch.rand(3, 9, 9) > 0.7, -100.0, 0.0)
        query, key, value = attention.qkv(tokens).view(6, 9, 3, 2, 4).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / 2 + attention.bias_table[attention.relative_index].permute(
            2, 0, 1
        )
        scores = scores + mask.repeat(2, 1, 1)[:, None]
        expected = attention.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention(tokens, mask), expected)

    def test_initial_values(self) -> None:
        swin = SwinTransformer(embed_dim=48, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4))
        attention = swin.stages[2].blocks[0].attn
        for weight in (
            attention.qkv.weight,
            attention.bias_table,
            swin.stages[0].downsample.reduction.weight,
        ):
            assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        assert not attention.qkv.bias.any()

    def test_drop_path_is_whole_branches_of_a_sample_and_only_in_training(self) -> None:
        block = SwinBlock(8, 2, window=4, shift=0, drop_path=0.5)
        x = torch.randn(64, 4, 4, 8)
        block.eval()
        torch.testing.assert_close(block(x), block(x))
        nn.init.zeros_(block.mlp[2].weight)
        nn.init.zeros_(block.mlp[2].bias)
        branch = (block(x) - x).detach()
        torch.manual_seed(0)
        dropped = (block.train()(x) - x).detach()
        left_out = dropped.flatten(1).abs().amax(1) == 0
        assert 15 < int(left_out.sum()) < 49
        torch.testing.assert_close(dropped[~left_out], 2 * branch[~left_out])

    def test_drop_path_grows_to_the_last_block(self) -> None:
        swin = SwinTransformer(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), drop_path=0.4)
        rates = [block.drop_path for stage in swin.stages for block in stage.blocks]
        np.testing.assert_allclose(rates, np.linspace(0, 0.4, 5), atol=1e-6)

    def test_masks_are_made_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from omma.systems.diffbev import swin as module

        calls = []
        original = module.shift_mask
        monkeypatch.setattr(module, "shift_mask", lambda *args: calls.append(args) or original(*args))
        swin = SwinTransformer(embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4))
        for _ in range(3):
            swin(torch.randn(1, 3, 64, 64))
        assert len(calls) == 4
        with torch.inference_mode():
            swin(torch.randn(1, 3, 96, 64))
        swin(torch.randn(1, 3, 96, 64))[0].sum().backward()
        assert len(calls) == 5  # the other maps are as large when padded


class TestViews:
    @torch.no_grad()
    @pytest.mark.parametrize("name", ["lift_splat", "vpn", "pyva", "pon"])
    def test_logits_have_twice_the_cells(self, name: str) -> None:
        model = small(view={"name": name})
        assert model(*inputs()).shape == (2, 14, 32, 32)
        assert model.bev(*inputs()).shape == (2, 16, 16, 16)

    @pytest.mark.parametrize("name", ["lift_splat", "vpn", "pyva", "pon"])
    def test_every_parameter_learns(self, name: str) -> None:
        model = with_gradients_everywhere(small(view={"name": name})).train()
        out = model.forward_train(*inputs())
        loss = out.logits.square().mean() + (0.0 if out.cycle is None else out.cycle)
        loss.backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert not without
        assert (out.cycle is not None) == (name == "pyva")
        assert (out.depth_logits is not None) == (name == "lift_splat")

    @torch.no_grad()
    def test_a_point_lands_in_its_cell(self) -> None:
        """All weight on 4 m and the left column of pixels: x = (0 - 64) / 100 * 4 = -2.56 m."""
        model = small()
        view: Any = model.view
        depth = torch.zeros(1, 8, *view.feature_size)
        depth[:, 3, :, 0] = 1.0
        bev = view.splat(depth, torch.ones(1, 1, *view.feature_size), inputs(1)[1])
        rows, columns = bev[0, 0].nonzero().unbind(1)
        assert rows.unique().tolist() == [(4 - 1) / 0.5]
        assert columns.unique().tolist() == [int((4 - 2.56) / 0.5)]
        assert float(bev.sum()) == view.feature_size[0]

    @torch.no_grad()
    def test_depth_as_a_channel_and_by_itself(self) -> None:
        image, intrinsics = inputs()
        appended, pooled = small(view={"name": "lift_splat", "append_depth": True}), small()
        pooled.view.load_state_dict(appended.view.state_dict())
        pooled.backbone.load_state_dict(appended.backbone.state_dict())
        pooled.view.pool_depth = True
        features = pooled.backbone(image)
        out = pooled.view(features, intrinsics)
        seventeen = appended.bev(image, intrinsics)
        assert seventeen.shape[1] == 17
        torch.testing.assert_close(out.bev, seventeen[:, :16])
        torch.testing.assert_close(out.depth_bev, seventeen[:, 16:])
        weights = out.depth_logits.softmax(1)[:, None]
        kept = pooled.view.cells(intrinsics) >= 0
        torch.testing.assert_close(out.depth_bev.sum((1, 2, 3)), (weights * kept).sum((1, 2, 3, 4)))

    def test_centres_are_the_middle_of_each_block_of_pixels(self) -> None:
        options = {
            "x": (-4.0, 4.0, 0.5),
            "y": (-10.0, 10.0, 20.0),
            "z": (1.0, 9.0, 0.5),
            "depth": (1.0, 9.0, 1.0),
        }
        view = LiftSplatView(4, 4, image_size=(600, 800), frustum_pixels="centres", **options)
        assert view.feature_size == (19, 25)
        pixels = view.pixels()
        assert pixels[0, 0].tolist() == [15.5, 15.5]
        assert pixels[18, 24].tolist() == [24 * 32 + 15.5, 18 * 32 + 15.5]

    def test_plans_are_kept_by_calibration(self) -> None:
        view: Any = small().view
        intrinsics = inputs(1)[1]
        plan = view.plan(intrinsics)
        assert view.plan(intrinsics.clone()) is plan
        assert view.plan(intrinsics * 1.01) is not plan

    def test_levels_of_the_pyramid_cover_the_grid(self) -> None:
        for z, focal in (((1.0, 50.0, 0.5), 630.0), ((1.0, 9.0, 0.5), 100.0), ((0.9, 30.0, 0.3), 400.0)):
            ranges = [bounds for _, bounds in level_ranges(z, focal)][::-1]
            assert ranges[0][0] == z[0]
            assert ranges[-1][1] == pytest.approx(z[1])
            for near, far in itertools.pairwise(ranges):
                assert near[1] == pytest.approx(far[0])

    def test_vpn_names_the_size_it_is_for(self) -> None:
        model = small(view={"name": "vpn"})
        with pytest.raises(ConfigError, match="3 x 4"):
            model.view([torch.randn(1, 64, 4, 4)], torch.eye(3)[None])


class TestDiffusion:
    def test_fork_trains_a_second_loss_and_infers_as_the_plain_head(self) -> None:
        fork, plain = small(diffusion={"name": "fork_aux"}), small()
        assert isinstance(fork.head, ForkHead)
        with_gradients_everywhere(fork)
        plain.load_state_dict(fork.state_dict(), strict=False)
        image, intrinsics = inputs()
        torch.testing.assert_close(fork(image, intrinsics), plain(image, intrinsics))
        out = fork.forward_train(image, intrinsics)
        assert out.diffusion is not None
        out.diffusion.backward()
        assert fork.backbone.patch_embed.projection.weight.grad.any()
        assert fork.head.classifier.weight.grad is None  # the logits that are noised are constants

    def test_paper_starts_at_the_baseline_and_repeats_itself(self) -> None:
        paper, plain = small(diffusion={"name": "paper", "widths": (8, 8, 16)}), small()
        image, intrinsics = inputs()
        with torch.no_grad():
            with_gradients_everywhere(paper)
            plain.load_state_dict(paper.state_dict(), strict=False)
            torch.testing.assert_close(paper(image, intrinsics), plain(image, intrinsics))
            nn.init.ones_(paper.refiner.fusion.gamma)
            together = paper(image, intrinsics)
            assert not torch.allclose(together, plain(image, intrinsics))
            alone = torch.cat([paper(image[i : i + 1], intrinsics[i : i + 1]) for i in range(2)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_times_and_noise_can_be_given(self) -> None:
        paper = small(diffusion={"name": "paper", "widths": (8, 8, 16)})
        options = {"times": torch.tensor([3, 900]), "noise": torch.randn(2, 16, 16, 16)}
        losses = [float(paper.forward_train(*inputs(), **options).diffusion.detach()) for _ in range(2)]
        assert losses[0] == losses[1]
        assert losses[0] != float(paper.forward_train(*inputs()).diffusion.detach())


class TestWholeNetwork:
    def test_wrong_image_size_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"64 x 64.*96 x 128"):
            small()(torch.randn(1, 3, 64, 64), inputs(1)[1])

    @torch.no_grad()
    def test_new_heads_give_the_priors(self) -> None:
        probability = small()(*inputs()).sigmoid().mean((0, 2, 3))
        assert float(probability[0]) == pytest.approx(0.44679, rel=1e-4)
        assert float(probability[11]) == pytest.approx(0.00012, rel=1e-3)

    @torch.no_grad()
    def test_priors_of_the_recipe(self) -> None:
        model = small(classes=["vehicle"], priors=[0.04])
        assert float(model(*inputs()).sigmoid().mean()) == pytest.approx(0.04, rel=1e-4)

    @torch.no_grad()
    def test_bfloat16_lifts_in_float32(self) -> None:
        model = with_gradients_everywhere(small())
        exact = model(*inputs())
        with torch.autocast("cpu", torch.bfloat16):
            features = model.backbone(inputs()[0])
            out = model.view(features, inputs()[1])
            logits = model(*inputs())
        assert out.bev.dtype == out.depth_logits.dtype == torch.float32
        assert (logits.float() - exact).abs().max() < 0.05 * exact.std() + 0.2
        assert torch.isfinite(logits).all()

    @torch.no_grad()
    def test_memory_layout_changes_nothing(self) -> None:
        model = with_gradients_everywhere(small())
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        torch.testing.assert_close(last(*inputs()), model(*inputs()), rtol=1e-4, atol=1e-4)

    def test_blocks_can_be_recomputed(self) -> None:
        model = with_gradients_everywhere(small())
        blocks = model.checkpoint_blocks()
        assert len(blocks) == 5 + 2
        inside = [module for block in blocks for module in block.modules()]
        assert len(inside) == len(set(map(id, inside)))
        model(*inputs()).square().mean().backward()
        plain = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        for block in blocks:
            block.forward = lambda *a, f=block.forward, **k: checkpoint(f, *a, use_reentrant=False, **k)
        model(*inputs()).square().mean().backward()
        for before, parameter in zip(plain, model.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, before, rtol=1e-3, atol=1e-6)

    @torch.no_grad()
    @pytest.mark.parametrize("name", ["lift_splat", "vpn", "pyva", "pon"])
    def test_export(self, name: str) -> None:
        model = with_gradients_everywhere(small(view={"name": name}))
        exported = torch.export.export(model, inputs()).module()
        image, intrinsics = inputs()
        torch.testing.assert_close(
            exported(image.flip(3), intrinsics * 1.05),
            model(image.flip(3), intrinsics * 1.05),
            rtol=1e-4,
            atol=1e-4,
        )
