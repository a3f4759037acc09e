from __future__ import annotations

import pytest
import torch
from pano_toy import build

from omma.errors import CheckpointError, ConfigError
from omma.systems.panollava.architecture import language_settings, tower_settings
from omma.systems.panollava.convert import from_reference, load_reference, load_reference_part, to_reference
from omma.systems.panollava.keys import generation_of, our_names, token_mlp_names


def names(*keys: str) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(1) for key in keys}


class TestNames:
    def test_three_generations(self) -> None:
        encoder = "encoder.layers.0.layer_norm1.weight"
        projection = "projector.linear.bias"
        by_generation = {
            "seed": names(f"vision_encoder.{encoder}", "vision_to_language_projection.bias"),
            "nov": names(f"vision_backbone.encoder.{encoder}", projection),
            "head": names(f"vision_encoder.encoder.{encoder}", projection),
        }
        for generation, weights in by_generation.items():
            assert generation_of(weights) == generation
            assert set(our_names(weights)) == {f"vision.encoder.{encoder}", projection}

    def test_wrappers_inside_are_cut(self) -> None:
        weights = names(
            "vision_encoder.vision_model.post_layernorm.weight",
            "language_model.base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight",
            "language_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        )
        layer = "language.lm.model.layers.0.self_attn.q_proj"
        assert set(our_names(weights)) == {
            "vision.encoder.post_layernorm.weight",
            f"{layer}.weight",
            f"{layer}.lora_A.default.weight",
        }

    def test_dropout_between_layers_takes_a_number(self) -> None:
        wide, narrow = torch.zeros(2, 2), torch.zeros(2)
        theirs = {
            "0.weight": wide,
            "1.weight": narrow,
            "4.weight": wide,
            "5.weight": narrow,
            "8.weight": wide,
        }
        ours = ["layers.0", "layers.1", "layers.3", "layers.4", "layers.6"]
        assert list(token_mlp_names(theirs)) == [f"{name}.weight" for name in ours]
        plain = {"0.weight": wide, "2.weight": wide, "4.weight": wide}
        assert list(token_mlp_names(plain)) == [f"layers.{place}.weight" for place in (0, 2, 4)]


class TestSizes:
    def test_of_published_towers(self) -> None:
        siglip = {
            "embeddings.patch_embedding.weight": torch.zeros(768, 3, 16, 16, device="meta"),
            "embeddings.position_embedding.weight": torch.zeros(196, 768, device="meta"),
            "encoder.layers.0.mlp.fc1.weight": torch.zeros(3072, 768, device="meta"),
            "encoder.layers.11.mlp.fc1.weight": torch.zeros(3072, 768, device="meta"),
        }
        found = tower_settings(siglip)
        assert found["model_type"] == "siglip_vision_model"
        assert [found[key] for key in ("num_hidden_layers", "num_attention_heads", "image_size")] == [
            12,
            12,
            224,
        ]
        assert tower_settings(siglip, {"num_attention_heads": 6})["num_attention_heads"] == 6

    @pytest.mark.parametrize(
        ("width", "queries", "keys", "heads"), [(896, 896, 128, (14, 2)), (1536, 1536, 256, (12, 2))]
    )
    def test_of_published_language_models(
        self, width: int, queries: int, keys: int, heads: tuple[int, int]
    ) -> None:
        layer = "model.layers.0"
        shapes = {
            "model.embed_tokens.weight": (100, width),
            f"{layer}.self_attn.q_proj.weight": (queries, width),
            f"{layer}.self_attn.k_proj.weight": (keys, width),
            f"{layer}.mlp.gate_proj.weight": (64, width),
        }
        found = language_settings({key: torch.zeros(shape, device="meta") for key, shape in shapes.items()})
        assert (found["num_attention_heads"], found["num_key_value_heads"]) == heads
        assert found["tie_word_embeddings"]


class TestRefusals:
    def test_what_is_left_over_is_named(self) -> None:
        published = to_reference(build())
        published["model.projector_of_another.weight"] = torch.zeros(1)
        heads = {"num_attention_heads": 4}
        with pytest.raises(CheckpointError, match=r"left over: projector_of_another"):
            load_reference(published, vision=heads, language={**heads, "num_key_value_heads": 2})

    def test_files_of_other_projects(self) -> None:
        with pytest.raises(CheckpointError, match="no network known here"):
            from_reference(names("backbone.conv1.weight"))
        with pytest.raises(CheckpointError, match="none known here"):
            load_reference_part("resampler", names("unknown.weight"))
        with pytest.raises(ConfigError, match="has no part"):
            load_reference_part("head", {})
