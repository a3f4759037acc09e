"""G2-MonoDepth: what a recipe can set, with its defaults and help (arXiv 2310.15422)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from omma.config.base import (
    DataSection,
    Fraction,
    NonNegativeFloat,
    PositiveInt,
    RunConfig,
    Section,
    SystemSection,
)
from omma.errors import ConfigError
from omma.systems.g2_monodepth.layouts import Layout
from omma.systems.g2_monodepth.patterns import parse_pattern


def _check_pattern(text: str) -> str:
    try:
        parse_pattern(text)
    except ConfigError as error:
        raise ValueError(f"{error.message}; {error.hint}" if error.hint else error.message) from None
    return text


Pattern = Annotated[str, AfterValidator(_check_pattern)]
STUDY_PATTERNS = (
    "none",
    "uniform:0.03%",
    "uniform:0.7%",
    "uniform:1%",
    "uniform:10%",
    "uniform:500",
    "lidar:8",
    "lidar:16",
    "lidar:32",
    "lidar:64",
    "full",
    "full with noise and holes",
    "uniform:1% with outliers:10%",
    "sector:25%",
    "bottom:25%",
)
Size = tuple[PositiveInt, PositiveInt]
PositiveFloat = Annotated[float, Field(gt=0)]
Pad = Literal["replicate", "reflect", "zero"]
HeadActivation = Literal["none", "relu", "softplus", "sigmoid"]


class UNetSection(Section):
    """The published network: a U-Net of ReZero bottlenecks."""

    name: Literal["unet"] = "unet"
    layers: Annotated[int, Field(ge=3)] = Field(7, description="levels; the last has stride 2^(layers - 1)")
    features: Annotated[int, Field(ge=4)] = Field(64, description="channels of the first level")
    block: Literal["rezero", "batch_norm"] = Field("rezero", description="batch_norm is the older variant")
    activation: HeadActivation = Field("none", description="after the last convolution")
    pad: Pad = Field("replicate", description="how images go on whose sides do not fit the stride")


class SPNetSection(Section):
    """The successors SPNet and PacGDC: scale-propagating normalisation in ConvNeXt blocks."""

    name: Literal["spnet", "pacgdc"]
    size: Literal["tiny", "small", "base", "large"] = "tiny"
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="largest stochastic depth; default the published one of that size"
    )
    activation: HeadActivation = Field("none", description="after the last convolution")
    pad: Pad = Field("replicate", description="how images go on whose sides do not fit the stride")


Network = Annotated[UNetSection | SPNetSection, Field(discriminator="name")]


class LossSection(Section):
    """Absolute, relative and gradient loss; the last two after standardisation of both maps."""

    absolute: NonNegativeFloat = Field(1.0, description="weight of adepth")
    relative: NonNegativeFloat = Field(1.0, description="weight of rdepth")
    gradient: NonNegativeFloat = Field(0.5, description="weight of rgrad")
    absolute_mask: Literal["gt", "raw", "raw_and_gt"] = Field(
        "gt", description="pixels of the absolute loss; raw, as released, pulls to 0 where blur invents depth"
    )
    scales: Annotated[int, Field(ge=1, le=8)] = Field(4, description="of the gradient: 1, 2, 4, 8 ... pixels")
    operator: Literal["sobel", "difference"] = "sobel"
    edge_mask: Literal["none", "erode"] = Field(
        "none", description="erode: gradients of known pixels alone, for sparse truth"
    )
    averaging: Literal["pooled", "per_image"] = Field(
        "pooled", description="over the batch or image by image"
    )
    mean_scales: bool = Field(False, description="mean of the scales' gradients instead of their sum")


class G2System(SystemSection):
    """The network and its loss."""

    name: Literal["g2_monodepth"] = "g2_monodepth"
    network: Network = UNetSection()
    loss: LossSection = LossSection()


class DegradationSection(Section):
    """How input depth is made of true depth in training."""

    style: Literal["code", "guide"] = Field("code", description="variant of noise, blur and holes")
    pattern: Pattern = Field(
        "mixture", description="which depths are kept, such as mixture, percent or lidar:8"
    )
    noise: Fraction = Field(0.5, description="chance of noise")
    blur: Fraction = Field(0.5, description="chance of blur")
    holes: Fraction = Field(0.8, description="chance of holes")
    outliers: Fraction = Field(0.0, description="largest share of depths replaced by wrong ones")
    relocate: bool = Field(True, description="scale true depths by 0.8 to 1.2 first")
    hole_maps: str | None = Field(None, description="folder of hole pictures; default random rectangles")


class PredictSection(Section):
    """What `omma predict` needs beside the picture, and what it does with given depths."""

    keep_input: bool = Field(False, description="given depths stay as they are in the result")
    intrinsics: tuple[PositiveFloat, PositiveFloat, float, float] | None = Field(
        None, description="fx, fy, cx, cy in pixels of --input pictures, the first pixel from 0 to 1"
    )
    field_of_view: Annotated[float, Field(gt=0, lt=180)] = Field(
        60.0, description="degrees from left to right, assumed for point clouds of unknown cameras"
    )


class ScoringSection(Section):
    """Which true depths count in validation and evaluation."""

    min_depth: NonNegativeFloat = Field(0.0, description="metres; true depths up to this do not count")
    max_depth: Annotated[float, Field(gt=0)] | None = Field(
        None, description="metres; true depths from this on do not count; default all do"
    )
    crop: Literal["garg", "eigen", "nyu"] | None = Field(
        None, description="part of the picture that counts: Garg's or Eigen's for KITTI, Eigen's for NYUv2"
    )


class G2Data(DataSection):
    """Where the pictures come from and how they are read."""

    layout: Layout = Field(
        "auto", description="auto looks at the folder; nyu_folder: folders in millimetres without rgbd.json"
    )
    units_per_metre: Annotated[float, Field(gt=0)] | None = Field(
        None, description="stored value of one metre, for folders of pictures; default rgbd.json"
    )
    max_depth: Annotated[float, Field(gt=0)] | None = Field(
        None, description="metres that count as 1 inside the network; default the data set's"
    )
    image_size: Size = Field((320, 320), description="[height, width] of training crops")
    val_image_size: Size | None = Field(
        None, description="[height, width] in validation; default each picture's own, in batches of one"
    )
    degradation: DegradationSection = DegradationSection()
    depth_resize: Literal["auto", "bilinear", "nearest", "scatter"] = Field(
        "auto", description="how depth follows a resize; auto scatters sparse truth"
    )
    hue: bool = Field(False, description="random hues in training")
    measured: Fraction = Field(
        0.0, description="chance that a measured input depth is used where there is one"
    )
    val_patterns: list[Pattern] = Field(
        ["none", "uniform:1%", "full"], min_length=1, description="input depths of the validation"
    )
    study_patterns: list[Pattern] = Field(
        list(STUDY_PATTERNS), min_length=1, description="input depths of `omma eval --study densities`"
    )
    scoring: ScoringSection = ScoringSection()
    predict: PredictSection = PredictSection()


class G2Config(RunConfig):
    """A recipe of G2-MonoDepth."""

    system: G2System = G2System()
    data: G2Data = G2Data()
