from __future__ import annotations

from typing import Any

import pytest
import torch
from pano_toy import LANGUAGE, TOWER, batch, build, config, conversation, loss_of
from safetensors.torch import load_file, save_file
from torch import Tensor

from omma.config.load import parse_overrides
from omma.core.panorama import View
from omma.engine.recompute import recompute_activations
from omma.engine.task import Task
from omma.errors import CheckpointError, ConfigError, DataError
from omma.systems.panollava.config import GenerateSection, LoraSection, PanoConfig, VisionSection
from omma.systems.panollava.convert import from_reference, load_reference, settings_of, to_reference
from omma.systems.panollava.language import fuse
from omma.systems.panollava.lora import merge_adapters, save_adapters
from omma.systems.panollava.model import PanoLLaVA, learning_parts
from omma.systems.panollava.projector import Projector, ring_lengths
from omma.systems.panollava.small_tokenizer import ENTRIES, SMALL_TOKENIZER
from omma.systems.panollava.text import IGNORED, PANORAMA
from omma.systems.panollava.to_published import published_statistics
from omma.systems.panollava.vision import FAMILIES, build_tower

RESAMPLERS: list[dict[str, Any]] = [
    {"name": "mlp", "width": 40, "depth": 3, "hidden": 24, "norm": "layer"},
    {"name": "mlp", "width": 40, "norm": "none", "pool_tokens": 5},
    {"name": "perceiver", "width": 40, "queries": 6, "depth": 1, "heads": 2},
    {"name": "qformer", "width": 40, "queries": 6, "depth": 1, "heads": 2},
    {"name": "spatial_pool", "width": 40, "stride": 2, "pooling": "conv"},
    {"name": "c_abstractor", "width": 40, "depth": 1, "queries": 4},
    {"name": "bimamba", "width": 40, "hidden": 16, "depth": 1, "state": 4},
]
RANDOM_TOWER = {"name": "random", "config": TOWER}
GREEDY = GenerateSection(max_new_tokens=6)


def tower(kind: str, **more: Any) -> VisionSection:
    settings = {**TOWER, "model_type": kind, **more}
    if kind.startswith("dino"):
        settings.pop("intermediate_size")
    return VisionSection(name="random", config=settings)


class TestTower:
    @pytest.mark.parametrize(
        ("kind", "prefix"),
        [("siglip_vision_model", 0), ("clip_vision_model", 1), ("dinov2", 1), ("dinov2_with_registers", 5)],
    )
    def test_grid_without_leading_tokens_and_no_unused_parameter(self, kind: str, prefix: int) -> None:
        vision = build_tower(tower(kind))
        assert vision.prefix == prefix
        views = vision.normalise(torch.zeros(2, 3, 32, 48, dtype=torch.uint8))
        assert torch.allclose(views[0, :, 0, 0], -vision.mean / vision.std)
        tokens = vision(views)
        assert tokens.shape == (2, 4 * 6, 32)
        tokens.sum().backward()
        assert [n for n, p in vision.named_parameters() if p.requires_grad and p.grad is None] == []
        assert len(vision.checkpoint_blocks()) == 2

    def test_statistics_are_stored_with_the_weights(self) -> None:
        state = build_tower(tower("clip_vision_model")).state_dict()
        assert torch.allclose(state["mean"], torch.tensor(FAMILIES["clip_vision_model"].mean))
        assert torch.allclose(state["std"], torch.tensor(FAMILIES["clip_vision_model"].std))

    def test_whole_models_of_images_and_text_from_a_folder(self, tmp_path) -> None:
        from transformers import SiglipConfig, SiglipModel

        text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        image = {key: value for key, value in TOWER.items() if key != "model_type"}
        whole = SiglipModel(SiglipConfig(vision_config=image, text_config=text)).eval()
        whole.save_pretrained(tmp_path)
        views = torch.randn(1, 3, 32, 32)
        vision = build_tower(VisionSection(name=str(tmp_path))).eval()
        expected = whole.vision_model(pixel_values=views).last_hidden_state
        assert torch.equal(vision(views), expected)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({}, "system.vision.config.model_type is missing"),
            ({"model_type": "no_such"}, "no such model"),
            ({"model_type": "dinov2", "hidden_sizes": 3}, "has no hidden_sizes"),
        ],
    )
    def test_wrong_settings_are_named(self, settings: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            build_tower(VisionSection(name="random", config=settings))

    def test_a_missing_folder_says_what_to_do(self, monkeypatch, tmp_path) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ConfigError, match=r"system.vision.name") as error:
            build_tower(VisionSection(name=str(tmp_path / "absent")))
        assert "random" in str(error.value.hint)


class TestProjector:
    RING = tuple(View(yaw, 0.0, (90.0, 90.0)) for yaw in (0.0, 45.0, 90.0))

    def words(self, stitch: str, grid: tuple[int, int] = (2, 4)) -> list[float]:
        """Numbers of the words: 100 view + 10 row + column, the whole panorama's negative."""
        views = (None, *self.RING)
        projector = Projector(1, 1, views=views, grid=grid, stitch=stitch, position="none")
        torch.nn.init.ones_(projector.linear.weight)
        torch.nn.init.zeros_(projector.linear.bias)
        view, row, column = torch.meshgrid(
            torch.arange(3.0), torch.arange(float(grid[0])), torch.arange(float(grid[1])), indexing="ij"
        )
        ring = (100 * view + 10 * row + column).flatten(1)[None, ..., None]
        whole = -torch.ones(1, 1, grid[0] * grid[1], 1)
        out = projector(torch.cat([whole, ring], dim=1), torch.zeros(0))
        assert out.shape[1] == projector.count(grid[0] * grid[1])
        assert (out[0, : grid[0] * grid[1]] == -1).all()
        return out[0, grid[0] * grid[1] :, 0].tolist()

    def test_orders(self) -> None:
        """k = 2 of 4 columns are repeated: the reference's layouts, worked out by hand."""
        per_view = [[0, 1, 2, 3, 10, 11, 12, 13], [100, 101, 102, 103, 110, 111, 112, 113]]
        assert self.words("views")[:16] == per_view[0] + per_view[1]
        row = [0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203]
        assert self.words("concat") == row + [value + 10 for value in row]
        row = [0, 1, 2, 3, 102, 103, 202, 203]
        assert self.words("stride_views") == row + [value + 10 for value in row]
        row = [0, 1, (2 + 100) / 2, (3 + 101) / 2, (102 + 200) / 2, (103 + 201) / 2, 202, 203]
        assert self.words("resample") == row + [value + 10 for value in row]

    def test_pooling_takes_squares(self) -> None:
        projector = Projector(1, 1, views=self.RING[:1], grid=(2, 5), pool=2, position="none")
        torch.nn.init.ones_(projector.linear.weight)
        torch.nn.init.zeros_(projector.linear.bias)
        tokens = torch.arange(10.0).view(1, 1, 10, 1)
        assert projector(tokens, torch.zeros(0)).flatten().tolist() == [3.0, 5.0]
        assert projector.count(10) == 2

    def test_rings_of_several_pitches_follow_one_another(self) -> None:
        tilted = [View(0.0, pitch, (90.0, 90.0)) for pitch in (-45.0, -45.0, 0.0)]
        assert ring_lengths([None, *tilted]) == [2, 1]
        with pytest.raises(ConfigError, match="behind others"):
            ring_lengths([*tilted, None])

    def test_code_of_directions_changes_nothing_at_first(self) -> None:
        model = build(projector={"position": "direction"})
        plain = build(projector={"position": "none"})
        plain.load_state_dict(model.state_dict(), strict=False)
        views = batch(model)["views"]
        assert torch.equal(model.words(model.encode(views)), plain.words(plain.encode(views)))
        torch.nn.init.ones_(model.projector.code.gate)
        tokens = model.encode(views[:, :1].expand(-1, model.num_views, -1, -1, -1))
        words = model.words(tokens).unflatten(1, (model.num_views, -1))
        assert (words[:, 0] - words[:, 1]).abs().max() > 1e-3, "views that show the same differ by direction"

    @pytest.mark.parametrize("projector", [{"stitch": "concat"}, {"pool": 2}, {"position": "columns"}])
    def test_queries_have_no_grid(self, projector: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="no grid"):
            build(resampler={"name": "perceiver", "queries": 4, "depth": 1}, projector=projector)


class TestNetwork:
    @pytest.mark.parametrize("resampler", RESAMPLERS, ids=lambda settings: settings["name"])
    def test_every_resampler_learns_through_the_loss(self, resampler: dict[str, Any]) -> None:
        model = build({"global_view": True}, resampler=resampler)
        assert model.num_views == 5
        sample = batch(model)
        words = model.words(model.encode(sample["views"]))
        assert words.shape == (2, model.words_per_panorama(), 48)
        loss, _ = loss_of(model, sample)
        loss.backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

    def test_every_view_reaches_its_own_sample(self) -> None:
        model = build().eval()
        sample = batch(model)
        loss, logits = loss_of(model, sample)
        first = int((sample["labels"][0] != IGNORED).sum())
        for view in range(model.num_views):
            changed = {**sample, "views": sample["views"].clone()}
            changed["views"][1, view] += 1.0
            _, other = loss_of(model, changed)
            assert torch.equal(other[:first], logits[:first])
            assert not torch.allclose(other[first:], logits[first:])
        assert torch.isfinite(loss)

    def test_loss_is_that_of_all_logits(self) -> None:
        model = build().eval()
        sample = batch(model)
        loss, _ = loss_of(model, sample)
        words = model.words(model.encode(sample["views"]))
        names = ("input_ids", "attention_mask", "labels")
        fused = model.fuse(words, *(sample[name] for name in names))
        whole = model.language.lm(
            inputs_embeds=fused.embeds, attention_mask=fused.mask, labels=fused.labels
        ).loss
        assert loss.item() == pytest.approx(whole.item(), rel=1e-6)

    def test_a_batch_without_answers_is_refused(self) -> None:
        model = build()
        sample = batch(model)
        sample["labels"] = torch.full_like(sample["labels"], IGNORED)
        with pytest.raises(DataError, match="no answer"):
            loss_of(model, sample)

    @pytest.mark.parametrize("placement", ["placeholder", "prefix"])
    def test_answers_do_not_depend_on_the_batch(self, placement: str) -> None:
        talk = conversation(text={"placement": placement})
        model = build(seed=1).eval()
        sample = batch(model, talk)
        assert sample["prompt_mask"].sum(1).unique().numel() == 2, "prompts of two lengths"
        together = model.generate(sample["views"], sample["prompt_ids"], sample["prompt_mask"], GREEDY)
        for index in range(2):
            kept = sample["prompt_mask"][index].bool()
            ids = sample["prompt_ids"][index, kept][None]
            alone = model.generate(sample["views"][index, None], ids, torch.ones_like(ids), GREEDY)
            assert alone[0].tolist() == together[index, : alone.shape[1]].tolist()
        changed = sample["views"].flip(0)
        other = model.generate(changed, sample["prompt_ids"], sample["prompt_mask"], GREEDY)
        assert other.shape[0] == 2

    def test_the_first_id_is_the_likeliest_of_forward(self) -> None:
        model = build(seed=1).eval()
        sample = batch(model)
        _, logits = loss_of(model, sample)
        first = [0, int((sample["labels"][0] != IGNORED).sum())]
        ids = model.generate(sample["views"], sample["prompt_ids"], sample["prompt_mask"], GREEDY)
        assert ids[:, 0].tolist() == logits[first].argmax(-1).tolist()

    def test_answers_end_at_a_stop_token_and_sampling_follows_the_seed(self) -> None:
        model = build(seed=1).eval()
        sample = batch(model)
        inputs = (sample["views"], sample["prompt_ids"], sample["prompt_mask"])
        first = model.generate(*inputs, GREEDY)[0, 0]
        model.language.stop_ids, model.language.pad_id = [int(first)], 0
        assert model.generate(*inputs, GREEDY)[0, 1:].tolist() in ([], [0] * 5)
        model.language.stop_ids = [2]
        drawn = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            settings = GenerateSection(max_new_tokens=8, temperature=1.0)
            drawn.append(model.generate(*inputs, settings).tolist())
        assert drawn[0] == drawn[1] != drawn[2]


class TestStages:
    def test_vision_has_the_tower_alone(self) -> None:
        model = build(stage="vision")
        assert list(model.parts()) == ["vision"]
        assert all(key.startswith("vision.") for key in model.state_dict())

    @pytest.mark.parametrize(
        ("system", "expected"),
        [
            ({"stage": "resampler"}, {"vision", "resampler", "projector"}),
            ({"stage": "finetune"}, {"resampler", "projector"}),
            ({"stage": "finetune", "train": ["language"]}, {"language"}),
            ({"stage": "finetune", "lora": {}}, {"resampler", "projector", "language"}),
        ],
    )
    def test_only_the_stage_s_parts_change(self, system: dict[str, Any], expected: set[str]) -> None:
        model = build(**system).train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(2):
            optimizer.zero_grad()
            loss_of(model, batch(model))[0].backward()
            optimizer.step()
        after = model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert {name.split(".")[0] for name in changed} == expected
        if "lora" in system:
            assert all(".lora_" in name for name in changed if name.startswith("language."))

    def test_frozen_parts_stay_in_eval_mode(self) -> None:
        model = build(train=["projector"]).train()
        assert not model.vision.training
        assert not model.resampler.training
        assert model.projector.training
        assert not model.encode(batch(model)["views"]).requires_grad

    def test_parts_that_learn(self) -> None:
        assert learning_parts(config(stage="vision").system) == ("vision",)
        assert learning_parts(config(lora={}).system) == ("resampler", "projector", "language")
        with pytest.raises(ConfigError, match="does not build"):
            build(stage="vision", train=["language"])


class TestState:
    def test_tied_embeddings_are_saved_once_and_tied_again(self, tmp_path) -> None:
        model = build(seed=1)
        state = model.state_dict()
        assert not any(name.endswith("lm_head.weight") for name in state)
        save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "m.safetensors")
        other = build(seed=2)
        other.load_state_dict(load_file(tmp_path / "m.safetensors"))
        lm = other.language.lm
        assert lm.lm_head.weight is lm.get_input_embeddings().weight
        sample = batch(model)
        assert torch.equal(loss_of(model.eval(), sample)[0], loss_of(other.eval(), sample)[0])

    def test_adapters_start_from_weights_without_them(self) -> None:
        plain, adapted = build(seed=1).eval(), build(seed=2, lora={"rank": 4}).eval()
        state = plain.state_dict()
        assert set(state) < set(adapted.state_dict())
        left = adapted.load_state_dict(state, strict=False)
        assert left.unexpected_keys == []
        assert all(".lora_" in name for name in left.missing_keys)
        sample = batch(plain)
        assert torch.equal(loss_of(plain, sample)[0], loss_of(adapted, sample)[0])

    def test_merged_adapters_say_the_same(self, tmp_path) -> None:
        model = build(lora={"rank": 4}).eval()
        for parameter in model.language.adapters:
            torch.nn.init.normal_(parameter, std=0.1)
        sample = batch(model)
        with torch.no_grad():
            loss, logits = loss_of(model, sample)
            folder = save_adapters(model.language.lm, tmp_path / "lora_weights")
            again = reopened(build().eval(), model, folder)
            assert torch.allclose(loss_of(again, sample)[1], logits, atol=1e-6)
            merge_adapters(model.language.lm)
            assert model.language.adapters == []
            assert torch.allclose(loss_of(model, sample)[1], logits, atol=1e-4)
        assert torch.isfinite(loss)

    def test_unknown_layers_for_adapters(self) -> None:
        with pytest.raises(ConfigError, match=r"system.lora.targets"):
            build(lora={"targets": ["no_such_layer"]})

    def test_a_table_of_another_length_takes_the_rows_it_has(self) -> None:
        model, larger = build(), build(language={"name": "random", "config": {**LANGUAGE, "vocab_size": 900}})
        name = "language.lm.model.embed_tokens.weight"
        with pytest.warns(UserWarning, match=f"{ENTRIES} rows put into a table of 900"):
            larger.load_state_dict(model.state_dict())
        assert torch.equal(larger.state_dict()[name][:ENTRIES], model.state_dict()[name])

    def test_a_table_too_short_for_the_tokenizer_grows(self) -> None:
        model = build(language={"name": "random", "config": {**LANGUAGE, "vocab_size": 100}})
        assert model.language.lm.get_input_embeddings().weight.shape[0] == ENTRIES

    def test_a_random_one_starts_with_weights_of_its_width(self) -> None:
        narrow = build().language.lm.model.layers[0].self_attn.q_proj.weight
        assert narrow.std() == pytest.approx(LANGUAGE["hidden_size"] ** -0.5, rel=0.1)
        own = build(language={"name": "random", "config": {**LANGUAGE, "initializer_range": 0.02}})
        assert own.language.lm.model.layers[0].self_attn.q_proj.weight.std() == pytest.approx(0.02, rel=0.1)

    def test_published_names_fill_the_recipe_s_network(self) -> None:
        model = build(projector={"position": "none"}).eval()
        ours = model.state_dict()
        published = {f"model.{theirs(name)}": value for name, value in ours.items() if "std" not in name}
        published.pop("model.vision.mean")
        head = "model.language_model.lm_head.weight"
        published[head] = published["model.language_model.model.embed_tokens.weight"].clone()
        back = from_reference({"state_dict": published})
        assert set(back) == set(ours)
        assert torch.equal(back["vision.std"], torch.ones(3)), "the first pipeline did not normalise"
        told = {"state_dict": published, "hyper_parameters": {"vision_name": "a/b", "lm_name": "c/d"}}
        words = settings_of(told)
        assert "system.resampler={name: mlp, width: 40, hidden: 40, norm: batch, depth: 2}" in words
        assert {"system.vision.name=a/b", "system.language.name=c/d"} < set(words)

    def test_a_later_state_with_a_norm_behind_the_tower(self) -> None:
        model = build(
            vision={**RANDOM_TOWER, "norm": True}, resampler={"name": "mlp", "width": 40, "norm": "layer"}
        )
        torch.nn.init.normal_(model.vision.norm.weight)
        published = to_reference(model)
        assert "model.vicreg_norm.weight" in published
        words = settings_of({"state_dict": published})
        assert "system.vision.norm=true" in words
        assert "system.resampler={name: mlp, width: 40, hidden: 40, norm: layer, depth: 2}" in words
        back = from_reference(published)
        assert torch.allclose(back["vision.mean"], torch.tensor(FAMILIES["dinov2"].mean))
        assert set(back) >= {name for name in model.state_dict() if not name.startswith("projector.code")}

    @pytest.mark.parametrize(
        "system", [{}, {"lora": {"rank": 4, "alpha": 8}}, {"vision": {**RANDOM_TOWER, "norm": True}}]
    )
    def test_export_to_the_published_form_and_back(self, system: dict[str, Any]) -> None:
        """The published network takes pixels as its data set gives them, and says the same."""
        model = build(text={"placement": "prefix"}, **system).eval()
        for parameter in model.language.adapters:
            torch.nn.init.normal_(parameter, std=0.1)
        sample = batch(model, conversation(text={"placement": "prefix"}))
        pixels = sample["views"] * model.vision.std[:, None, None] + model.vision.mean[:, None, None]
        mean, std = (torch.tensor(v)[:, None, None] for v in published_statistics(norm="vision" in system))
        heads = {key: LANGUAGE[key] for key in ("num_attention_heads", "num_key_value_heads")}
        published = load_reference(
            to_reference(model),
            vision={"num_attention_heads": 4},
            language={**heads, "rope_theta": 10000.0},
        )
        names = ("input_ids", "attention_mask", "labels")
        with torch.no_grad():
            expected = float(loss_of(model, sample)[0])
            loss, _ = published((pixels - mean) / std, *(sample[name] for name in names))
            assert float(loss) == pytest.approx(expected, rel=1e-5)
            again = imported(to_reference(model)).eval()
            loss, _ = loss_of(again, {**sample, "views": (pixels - mean) / std})
            assert float(loss) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(
        "system",
        [{"projector": {"pool": 2}}, {"resampler": {"name": "perceiver", "queries": 4, "depth": 1}}],
    )
    def test_what_the_published_form_has_not(self, system: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="first pipeline"):
            to_reference(build(**system))

    def test_recomputed_activations_give_the_same_gradients(self) -> None:
        gradients = []
        for recompute in (False, True):
            task = Task()
            task.model = build(train=["vision", "resampler", "projector", "language"])
            task.checkpoint_blocks = task.model.checkpoint_blocks
            assert len(task.checkpoint_blocks()) == 4, "two layers each of tower and language model"
            if recompute:
                recompute_activations(task)
            loss_of(task.model.train(), batch(task.model))[0].backward()
            gradients.append([p.grad for p in task.model.parameters() if p.grad is not None])
        assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def theirs(name: str) -> str:
    """The first pipeline's name of one of ours."""
    pairs = {
        "vision.encoder.": "vision_encoder.",
        "resampler.layers.0.": "resampler.linear1.",
        "resampler.layers.1.": "resampler.bn1.",
        "resampler.layers.3.": "resampler.linear2.",
        "projector.linear.": "vision_to_language_projection.",
        "language.lm.": "language_model.",
    }
    for ours, reference in pairs.items():
        if name.startswith(ours):
            return f"{reference}{name.removeprefix(ours)}"
    return name


def imported(published: dict[str, Tensor]) -> PanoLLaVA:
    """The network of a recipe with a published file's settings and weights."""
    system = parse_overrides(settings_of(published), PanoConfig, {})["system"]
    system["vision"] = {**RANDOM_TOWER, **system.get("vision", {})}
    model = build(**system)
    model.load_state_dict(from_reference(published))
    return model


def reopened(plain: PanoLLaVA, source: PanoLLaVA, folder) -> PanoLLaVA:
    """A network with the source's weights whose adapters peft itself reads from their folder."""
    from peft import PeftModel

    own = {name: value for name, value in source.state_dict().items() if ".lora_" not in name}
    plain.load_state_dict(own)
    plain.language.lm = PeftModel.from_pretrained(plain.language.lm, str(folder))
    return plain.eval()


class TestFolders:
    def test_language_model_and_tokenizer_of_a_folder(self, tmp_path) -> None:
        """As downloaded: 16 bits, tied, with settings for sampling that do not count here."""
        source = build(seed=1)
        lm = source.language.lm.to(torch.bfloat16)
        lm.generation_config.do_sample, lm.generation_config.repetition_penalty = True, 1.1
        lm.save_pretrained(tmp_path)
        conversation().tokenizer.save_pretrained(tmp_path)
        model = build(language={"name": str(tmp_path)}).eval()
        loaded = model.language.lm
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
        assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
        weight = loaded.model.layers[0].mlp.up_proj.weight
        assert torch.equal(weight, lm.model.layers[0].mlp.up_proj.weight.float())
        talk = conversation(language={"name": str(tmp_path)})
        assert talk.prompt("sky") == conversation().prompt("sky")
        sample = batch(model, talk)
        inputs = (sample["views"], sample["prompt_ids"], sample["prompt_mask"], GREEDY)
        assert model.generate(*inputs).tolist() == model.generate(*inputs).tolist()
        assert not loaded.generation_config.do_sample

    def test_a_folder_without_all_weights(self, tmp_path) -> None:
        build().language.lm.save_pretrained(tmp_path)
        state = load_file(tmp_path / "model.safetensors")
        state.pop("model.norm.weight")
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"1 tensors.*model.norm.weight"):
            build(language={"name": str(tmp_path), "tokenizer": str(SMALL_TOKENIZER)})


class TestFuse:
    IDS = torch.tensor([[5, PANORAMA, 6, 7], [8, 9, PANORAMA, 0]])
    MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    WORDS = torch.tensor([[[-1.0], [-2.0]], [[-3.0], [-4.0]]])

    def row(self, ids: Tensor, mask: Tensor, **options: Any) -> tuple[list, list]:
        text = ids[..., None].float()
        fused = fuse(text, ids, mask, self.WORDS, **options)
        return fused.embeds[..., 0].tolist(), fused.mask.tolist()

    def test_at_the_placeholder(self) -> None:
        embeds, mask = self.row(self.IDS, self.MASK)
        assert embeds == [[5, -1, -2, 6, 7], [8, 9, -3, -4, 0]]
        assert mask == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]

    def test_filled_up_at_the_start(self) -> None:
        ids, mask = torch.tensor([[0, 5, 6], [7, PANORAMA, 8]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
        embeds, kept = self.row(ids, mask, left=True)
        assert embeds == [[0, -1, -2, 5, 6], [0, 7, -3, -4, 8]]
        assert kept == [[0, 1, 1, 1, 1], [0, 1, 1, 1, 1]]

    def test_later_placeholders_go(self) -> None:
        ids = torch.tensor([[5, PANORAMA, PANORAMA, 6], [PANORAMA, 7, 8, 9]])
        embeds, mask = self.row(ids, torch.ones_like(ids))
        assert embeds == [[5, -1, -2, 6, 0], [-3, -4, 7, 8, 9]]
        assert mask == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_adapters_need_peft(monkeypatch) -> None:
    from omma.systems.panollava.lora import add_adapters

    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match="package peft"):
        add_adapters(torch.nn.Linear(1, 1), LoraSection())
