"""PanoLLaVA: what a recipe can set, with its defaults and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr

from omma.config.base import (
    DataSection,
    Fraction,
    NonNegativeFloat,
    PositiveInt,
    RunConfig,
    Section,
    SystemSection,
)

Size = tuple[PositiveInt, PositiveInt]
Stage = Literal["vision", "resampler", "finetune"]
Part = Literal["vision", "resampler", "projector", "language"]


class ModelSection(Section):
    """A model of the hub, a local folder, or a random one.

    A run keeps the model's settings; `pretrained.recall` says where, and its weights are in checkpoints.
    """

    _kept: Path | None = PrivateAttr(None)
    _bare: bool = PrivateAttr(False)

    @property
    def kept(self) -> Path | None:
        """Folder of a run with the settings, and the tokenizer, of the model of this name."""
        return self._kept

    @property
    def bare(self) -> bool:
        """Whether weights of a checkpoint follow, so that none have to be fetched."""
        return self._bare

    def with_own(self, *, kept: Path | None, bare: bool) -> Self:
        """A copy that says so."""
        copy = self.model_copy()
        copy._kept, copy._bare = kept, bare
        return copy


class VisionSection(ModelSection):
    """The image tower: a model of the hub, a local folder, or a random one."""

    name: str = Field(
        "google/siglip-base-patch16-224", description="hub name or folder; random builds one from `config`"
    )
    config: dict[str, Any] = Field({}, description="of a random tower: model_type and its settings")
    norm: bool = Field(False, description="a layer norm behind the tower, as some published weights have it")


class LanguageSection(ModelSection):
    """The language model: a model of the hub, a local folder, or a random one."""

    name: str = Field("Qwen/Qwen2.5-0.5B", description="hub name or folder; random builds one from `config`")
    config: dict[str, Any] = Field({}, description="of a random model: model_type and its settings")
    tokenizer: str | None = Field(
        None, description="hub name or folder; default the model's, of a random one omma's"
    )


class MlpResampler(Section):
    """Token-wise layers."""

    name: Literal["mlp"] = "mlp"
    width: PositiveInt = Field(768, description="of the tokens that come out")
    hidden: PositiveInt | None = Field(None, description="default: width, or 1536 with more than two layers")
    depth: Annotated[int, Field(ge=2)] = 2
    norm: Literal["batch", "layer", "none"] = "batch"
    pool_tokens: PositiveInt | None = None
    pooling: Literal["mean", "max"] = "mean"


class QueryResampler(Section):
    """Learned queries that look at the tokens of a view."""

    name: Literal["perceiver", "qformer"]
    width: PositiveInt = 768
    queries: PositiveInt = 64
    depth: PositiveInt = 6
    heads: PositiveInt = 8
    causal: bool = Field(False, description="qformer: queries see earlier ones only, as in the reference")


class GridResampler(Section):
    """Layers over the grid of a view's tokens."""

    name: Literal["spatial_pool", "c_abstractor"]
    width: PositiveInt = 768
    hidden: PositiveInt | None = None
    depth: PositiveInt = 2
    pooling: Literal["mean", "max", "conv"] = "mean"
    stride: PositiveInt = Field(4, description="of spatial_pool")
    queries: PositiveInt | None = Field(None, description="tokens that c_abstractor gives, a square number")


class MambaResampler(Section):
    """Selective state spaces in both directions, in plain PyTorch."""

    name: Literal["bimamba"]
    width: PositiveInt = 768
    hidden: PositiveInt = 512
    depth: PositiveInt = 4
    state: PositiveInt = 64
    dropout: Fraction = 0.0


Resampler = Annotated[
    MlpResampler | QueryResampler | GridResampler | MambaResampler, Field(discriminator="name")
]


class ProjectorSection(Section):
    """From view tokens to words of the language model."""

    stitch: Literal["views", "concat", "stride_views", "resample"] = Field(
        "views", description="views: one after the other; stride_views leaves doubled columns out"
    )
    pool: PositiveInt = Field(1, description="mean over so many by so many tokens of a view: fewer words")
    position: Literal["none", "direction", "columns"] = Field(
        "direction", description="code of where a token looks; columns is the reference's"
    )


class LoraSection(Section):
    """Low-rank adapters on the language model, through peft."""

    rank: PositiveInt = 16
    alpha: PositiveInt = 32
    dropout: Fraction = 0.1
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        description="layers of the language model",
    )


class OverlapSection(Section):
    """The loss between tokens of neighbouring views that look at the same place."""

    name: Literal["vicreg", "vicreg_local", "densecl"] = "vicreg"
    pairing: Literal["geometry", "columns"] = Field(
        "geometry", description="columns pairs by index, as the reference, and is off by a patch or more"
    )
    weight: NonNegativeFloat | None = Field(None, description="default: 1 in stage vision, else 0")
    invariance: NonNegativeFloat | None = Field(None, description="default: 25, of vicreg_local 1")
    variance: NonNegativeFloat | None = Field(None, description="default: 25, of vicreg_local 1")
    covariance: NonNegativeFloat | None = Field(None, description="default: 1, of vicreg_local 0.01")
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="of densecl")

    def factors(self) -> tuple[float, float, float]:
        """Of invariance, variance and covariance."""
        invariance, variance, covariance = (
            (1.0, 1.0, 0.01) if self.name == "vicreg_local" else (25.0, 25.0, 1.0)
        )
        return (
            invariance if self.invariance is None else self.invariance,
            variance if self.variance is None else self.variance,
            covariance if self.covariance is None else self.covariance,
        )


class TextSection(Section):
    """What the language model is told."""

    system: str = Field("You are a helpful assistant.", description="first message")
    query: str = Field("{query}", description="the user's message; {query} is the sample's")
    max_length: PositiveInt = Field(128, description="tokens of prompt and answer")
    placement: Literal["placeholder", "prefix"] = Field(
        "placeholder", description="panorama tokens inside the user's message, or before everything"
    )


class GenerateSection(Section):
    """How answers are written."""

    answers: bool = Field(
        False, description="validation writes and scores answers too; `omma eval` always does"
    )
    max_new_tokens: PositiveInt = 64
    temperature: NonNegativeFloat = Field(0.0, description="0 takes the likeliest word each time")
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    top_k: PositiveInt = 50
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    clip: str | None = Field(
        None, description="folder of a CLIP-like model of transformers, which scores answers by clip_s"
    )


class PanoSystem(SystemSection):
    """The network, its stage and its losses."""

    name: Literal["panollava"] = "panollava"
    stage: Stage = "finetune"
    train: list[Part] | None = Field(
        None,
        description="parts that learn; default: vision in stage vision, with resampler and projector in "
        "stage resampler, these two in stage finetune",
    )
    vision: VisionSection = VisionSection()
    language: LanguageSection = LanguageSection()
    resampler: Resampler = MlpResampler()
    projector: ProjectorSection = ProjectorSection()
    lora: LoraSection | None = None
    overlap: OverlapSection = OverlapSection()
    text: TextSection = TextSection()
    generate: GenerateSection = GenerateSection()


class ViewsSection(Section):
    """How a panorama is cut into views."""

    name: Literal[
        "e2p", "e2p_reference", "sliding_window", "cubemap", "resize", "anyres", "anyres_max", "anyres_e2p"
    ] = Field(
        "e2p", description="e2p closes the ring exactly and cuts nothing off; e2p_reference does as published"
    )
    image_size: Size = Field((224, 224), description="[height, width] of a view")
    fov_deg: Annotated[float, Field(gt=0, lt=180)] = 90.0
    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, description="of neighbouring views")
    pitches_deg: list[float] = Field([0.0], description="of e2p: a ring of views for each")
    global_view: bool = Field(False, description="also the whole panorama, first")


class BeginSection(Section):
    """Easier questions first: a small model hardly finds them among others."""

    queries: str = Field(description="regular expression that a question has to begin with")
    epochs: PositiveInt = Field(description="first ones, in which these questions take the others' places")


class PanoData(DataSection):
    """Tables of panoramas with questions and answers."""

    train_csv: str | None = Field(None, description="default: train.csv or .tsv under data.root")
    val_csv: str | None = Field(None, description="default: valid.csv or val.csv or .tsv under data.root")
    image_root: str | None = Field(
        None, description="where relative image paths start; default the table's folder"
    )
    views: ViewsSection = ViewsSection()
    random_yaw: bool = Field(True, description="turn each panorama by a random angle in training")
    direction_words: Annotated[list[str], Field(min_length=4, max_length=4)] | None = Field(
        None,
        description="what ahead, right, behind and left are called: with random_yaw, panoramas of questions "
        "in these words turn by quarters, and the words with them; others that speak of directions stay",
    )
    begin_with: BeginSection | None = None
    bad_images: Fraction = Field(
        0.01, description="largest share of unreadable images that training tolerates"
    )


class PanoConfig(RunConfig):
    """A recipe of PanoLLaVA."""

    system: PanoSystem = PanoSystem()
    data: PanoData = PanoData()
