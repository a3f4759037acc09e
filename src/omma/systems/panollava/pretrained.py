"""Image towers and language models of transformers: from the hub, from a folder, or random from settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from omma.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from omma.systems.panollava.config import LanguageSection, VisionSection

RANDOM = "random"
_UNUSED = ("head.", "vision_model.head.", "pooler.")  # of towers; never computed here
_KINDS = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}


def tower_model(settings: VisionSection) -> nn.Module:
    """The image tower that a recipe names, in 32 bits; of a model of images and text the part for images.

    Raises:
        ConfigError: it cannot be had, or the settings of a random one are wrong.
        CheckpointError: weights are missing in it.
    """
    from transformers import AutoConfig, AutoModel

    if settings.name == RANDOM:
        config = _random_config(settings.config, "system.vision.config")
        return _make(AutoModel, _for_images(config), "system.vision.config")
    config = _for_images(_fetch(AutoConfig, settings.name, "system.vision.name"))
    model, found = _fetch(
        AutoModel, settings.name, "system.vision.name", config=config, output_loading_info=True
    )
    _check_complete(found, settings.name, _UNUSED)
    return model.float()


def causal_model(settings: LanguageSection, *, entries: int) -> nn.Module:
    """The language model that a recipe names, in 32 bits.

    Args:
        settings: which one.
        entries: of the tokenizer; a random model gets so many unless it says otherwise.

    Raises:
        ConfigError: it cannot be had, or the settings of a random one are wrong.
        CheckpointError: weights are missing in it.
    """
    from transformers import AutoModelForCausalLM

    if settings.name == RANDOM:
        values = {"vocab_size": entries, **settings.config}
        config = _random_config(values, "system.language.config")
        if "initializer_range" not in values and hasattr(config, "initializer_range"):
            # transformers' 0.02 is for thousands of features; a narrow model would hardly attend at first
            config.initializer_range = config.hidden_size**-0.5
        return _make(AutoModelForCausalLM, config, "system.language.config")
    model, found = _fetch(
        AutoModelForCausalLM, settings.name, "system.language.name", output_loading_info=True
    )
    _check_complete(found, settings.name, ())
    return model.float()


def _random_config(values: Mapping[str, Any], key: str) -> PretrainedConfig:
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = values.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise ConfigError(
            f"{key}.model_type={kind}: transformers has no such model"
            if kind
            else f"{key}.model_type is missing",
            hint="such as siglip_vision_model, clip_vision_model, dinov2, or qwen2 and llama for language",
        )
    rest = {name: value for name, value in values.items() if name != "model_type"}
    try:
        config = AutoConfig.for_model(kind, **rest)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key}: {error}", hint="the keys are those of transformers' class") from error
    unknown = [name for name in rest if name not in type(config)().to_dict() and name != "rope_theta"]
    if unknown:
        raise ConfigError(f"{key}: {kind} has no {', '.join(unknown)}", hint="look for misspelt names")
    return config


def _make(auto: Any, config: PretrainedConfig, key: str) -> nn.Module:
    try:
        return auto.from_config(config)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{key}: {error}", hint="these settings make no model of transformers") from error


def _for_images(config: PretrainedConfig) -> PretrainedConfig:
    """Of images and text the part for images; named as transformers registers it."""
    inner = getattr(config, "vision_config", config)
    wanted = _KINDS.get(inner.model_type)
    if wanted is None:
        return inner
    from transformers import AutoConfig

    return AutoConfig.for_model(wanted, **{k: v for k, v in inner.to_dict().items() if k != "model_type"})


def _fetch(auto: Any, name: str, key: str, **options: Any) -> Any:
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what is left unread, such as a text tower, is checked here
    try:
        return auto.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{key}={name} cannot be had: {str(error).splitlines()[0]}",
            hint=f"on a connected machine fetch it, for example with `hf download {name}`, copy it here "
            f"and set {key} to it; or {key}=random with a config. HF_HUB_OFFLINE=1 spares the waiting",
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def _check_complete(found: Mapping[str, Any], name: str, unused: tuple[str, ...]) -> None:
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(unused))
    if missing:
        raise CheckpointError(
            f"{name} has no weights for {len(missing)} tensors of its network, first {missing[0]}",
            hint="fetch its files again",
        )
