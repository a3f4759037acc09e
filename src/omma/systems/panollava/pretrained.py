"""Image towers and language models of transformers: from the hub, from a folder, or random from settings.

A run keeps the settings of models that have a name, and the tokenizer: with the weights of a checkpoint it
needs neither the hub nor the folder that the models came from again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from omma.data.outputs import write_whole
from omma.errors import CheckpointError, ConfigError
from omma.systems.panollava.text import load_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from omma.systems.panollava.config import LanguageSection, ModelSection, PanoConfig, VisionSection

RANDOM = "random"
_UNUSED = ("head.", "vision_model.head.", "pooler.")  # of towers; never computed here
_NAMES = "names.json"  # which models and tokenizer a run's folder is about
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
    config = _for_images(_fetch(AutoConfig, _source(settings), "system.vision.name"))
    if settings.bare:
        return _make(AutoModel, config, "system.vision.name").float()
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
    from transformers import AutoConfig, AutoModelForCausalLM

    if settings.name == RANDOM:
        values = {"vocab_size": entries, **settings.config}
        config = _random_config(values, "system.language.config")
        if "initializer_range" not in values and hasattr(config, "initializer_range"):
            # transformers' 0.02 is for thousands of features; a narrow model would hardly attend at first
            config.initializer_range = config.hidden_size**-0.5
        return _make(AutoModelForCausalLM, config, "system.language.config")
    if settings.bare:
        config = _fetch(AutoConfig, _source(settings), "system.language.name")
        return _make(AutoModelForCausalLM, config, "system.language.name").float()
    model, found = _fetch(
        AutoModelForCausalLM, settings.name, "system.language.name", output_loading_info=True
    )
    _check_complete(found, settings.name, ())
    return model.float()


def keep(config: PanoConfig, folder: Path) -> None:
    """Write settings of the models that have a name, and the tokenizer, where `recall` finds them.

    Args:
        config: of a training that begins; its models have been fetched.
        folder: of the run.
    """
    from transformers import AutoConfig

    for part, settings in _parts(config).items():
        if settings.name != RANDOM:
            _fetch(AutoConfig, settings.name, f"system.{part}.name").save_pretrained(folder / part)
    language = _parts(config).get("language")
    if language is not None and _tokenizer_name(config) is not None:
        load_tokenizer(config.system.language).save_pretrained(folder / "language")
    if folder.is_dir():
        write_whole(folder / _NAMES, json.dumps(_names(config), indent=1, ensure_ascii=False).encode())


def recall(config: PanoConfig, folder: Path | None, *, bare: bool) -> PanoConfig:
    """A run's config, whose models and tokenizer of the same names come from what the run keeps.

    Args:
        config: of the run, with overrides.
        folder: that `keep` wrote to, if it did; None: there is no run.
        bare: whether weights of a checkpoint follow.
    """
    system, now, names = config.system, _names(config), dict[str, str | None]()
    if folder is not None and (folder / _NAMES).is_file():
        names = json.loads((folder / _NAMES).read_text(encoding="utf-8"))
    sections = {}
    for part in ("vision", "language"):
        known = names and all(names.get(key) == now[key] for key in now if key.startswith(part))
        kept = folder / part if folder is not None and known else None
        sections[part] = getattr(system, part).with_own(kept=kept, bare=bare)
    return config.model_copy(update={"system": system.model_copy(update=sections)})


def _names(config: PanoConfig) -> dict[str, str | None]:
    system = config.system
    return {
        "vision": system.vision.name,
        "language": system.language.name,
        "language.tokenizer": _tokenizer_name(config),
    }


def _tokenizer_name(config: PanoConfig) -> str | None:
    """None for omma's own."""
    language = config.system.language
    return language.tokenizer or (None if language.name == RANDOM else language.name)


def _parts(config: PanoConfig) -> dict[str, ModelSection]:
    """The sections of the models that the stage builds."""
    system = config.system
    tower: dict[str, ModelSection] = {"vision": system.vision}
    return tower if system.stage == "vision" else tower | {"language": system.language}


def _source(settings: ModelSection) -> str:
    """Where a model's settings are."""
    kept = settings.kept
    return str(kept) if kept is not None and (kept / "config.json").is_file() else settings.name


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
