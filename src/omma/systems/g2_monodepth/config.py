"""G2-MonoDepth: what a recipe can set, with its defaults and help (arXiv 2310.15422)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

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
from omma.systems.g2_monodepth.patterns import MEASURED, parse_pattern


def _check_pattern(text: str) -> str:
    try:
        parse_pattern(text)
    except ConfigError as error:
        raise ValueError(f"{error.message}; {error.hint}" if error.hint else error.message) from None
    return text


def _check_val_pattern(text: str) -> str:
    return text if text == MEASURED else _check_pattern(text)


Pattern = Annotated[str, AfterValidator(_check_pattern)]
ValPattern = Annotated[str, AfterValidator(_check_val_pattern)]
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
PositiveFloat = Annotated[float, Field(gt=0)]
HeadActivation = Literal["none", "relu", "softplus", "sigmoid"]
G2_TERMS = ("absolute", "relative", "gradient")
TERMS = (*G2_TERMS, *"silog ssi ssi_trim berhu l1 mse abs_rel integer fractional".split())
OF_POSITIVE_DEPTH = ("silog", "ssi", "ssi_trim")


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


class ResNetSANSection(Section):
    """A ResNet with a branch for sparse depth; its bounds are metres whatever the data's max_depth is."""

    name: Literal["resnet_san"]
    layers: Literal[18, 34, 50] = 18
    dual_head: bool = Field(False, description="whole metres and the rest apart, for integer hardware")
    sparse: bool = Field(True, description="the branch that reads depth; without, images alone count")
    min_depth: PositiveFloat = Field(0.5, description="metres; smallest depth of the single head")
    max_depth: PositiveFloat = Field(15.0, description="metres; largest depth")
    space: Literal["linear", "log"] = Field(
        "linear", description="the single head moves evenly in inverse depth, or in its logarithm"
    )
    consistency: NonNegativeFloat = Field(
        1.0, description="weight of what given depth changes in the features, with the sparse branch"
    )
    pad: Pad = Field("replicate", description="how images go on whose sides do not fit the stride")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth {self.min_depth:g} is not below max_depth {self.max_depth:g}")
        return self


Network = Annotated[UNetSection | SPNetSection | ResNetSANSection, Field(discriminator="name")]


class Terms(Section):
    """Weights of the terms of a loss; 0 leaves a term out. Families differ in the defaults alone.

    The first three are G2-MonoDepth's, of depths over max_depth; the others are packnet's, in metres.
    """

    name: str
    absolute: NonNegativeFloat = Field(0.0, description="adepth: mean absolute error")
    relative: NonNegativeFloat = Field(0.0, description="rdepth: the same of both maps standardised")
    gradient: NonNegativeFloat = Field(0.0, description="rgrad: gradients of these; goes with any other term")
    silog: NonNegativeFloat = Field(0.0, description="deviation of log depth, its mean counts for less")
    ssi: NonNegativeFloat = Field(0.0, description="variance of inverse depth, its mean counts for less")
    ssi_trim: NonNegativeFloat = Field(
        0.0, description="inverse depth after scale and shift, without the largest fifth of the errors"
    )
    berhu: NonNegativeFloat = Field(0.0, description="absolute error, large ones squared too")
    l1: NonNegativeFloat = Field(0.0, description="mean absolute error in metres")
    mse: NonNegativeFloat = Field(0.0, description="mean square error in square metres")
    abs_rel: NonNegativeFloat = Field(0.0, description="mean absolute error over true depth")
    integer: NonNegativeFloat = Field(0.0, description="whole metres of a dual head")
    fractional: NonNegativeFloat = Field(0.0, description="the rest of a dual head")
    absolute_mask: Literal["gt", "raw", "raw_and_gt"] = Field(
        "gt", description="pixels of `absolute`; raw, as released, pulls to 0 where blur invents depth"
    )
    scales: Annotated[int, Field(ge=1, le=8)] = Field(4, description="of the gradient: 1, 2, 4, 8 ... pixels")
    operator: Literal["sobel", "difference"] = "sobel"
    edge_mask: Literal["none", "erode"] = Field(
        "none", description="erode: gradients of known pixels alone, for sparse truth"
    )
    averaging: Literal["pooled", "per_image"] = Field(
        "pooled", description="of G2's terms, over the batch or image by image"
    )
    mean_scales: bool = Field(False, description="mean of the scales' gradients instead of their sum")


class LossSection(Terms):
    """Absolute, relative and gradient loss of G2-MonoDepth; scale_adaptive is packnet's name for them."""

    name: Literal["g2", "scale_adaptive"] = "g2"
    absolute: NonNegativeFloat = Field(1.0, description="adepth: mean absolute error")
    relative: NonNegativeFloat = Field(1.0, description="rdepth: the same of both maps standardised")
    gradient: NonNegativeFloat = Field(0.5, description="rgrad: gradients of these; goes with any other term")


class SsiSilogLoss(Terms):
    """Inverse and logarithmic depth together, packnet's loss of a single head."""

    name: Literal["ssi_silog"]
    ssi: NonNegativeFloat = Field(0.7, description="variance of inverse depth, its mean counts for less")
    silog: NonNegativeFloat = Field(0.3, description="deviation of log depth, its mean counts for less")


class DualHeadLoss(Terms):
    """Both parts of a dual head, and the depth that they give."""

    name: Literal["dual_head"]
    integer: NonNegativeFloat = Field(1.0, description="whole metres of a dual head")
    fractional: NonNegativeFloat = Field(10.0, description="the rest of a dual head")
    l1: NonNegativeFloat = Field(0.5, description="mean absolute error in metres")


class ChosenTerms(Terms):
    """Nothing but the terms that are given a weight."""

    name: Literal["terms"]


Loss = Annotated[LossSection | SsiSilogLoss | DualHeadLoss | ChosenTerms, Field(discriminator="name")]


class G2System(SystemSection):
    """The network and its loss."""

    name: Literal["g2_monodepth"] = "g2_monodepth"
    network: Network = UNetSection()
    pretrained: str = Field(
        "none",
        description="first weights of resnet_san's encoder: none; timm (ImageNet, download); auto: timm, or "
        "a notice and none where it cannot be had; or a file",
    )
    loss: Loss = LossSection()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_loss(self.loss, self.network)
        return self


def check_loss(loss: Loss, network: Network) -> None:
    """Refuse a loss that the network cannot be trained with.

    Args:
        loss: one of the `Loss` sections.
        network: one of the `Network` sections.

    Raises:
        ValueError: the first thing that does not fit, and a way out.
    """
    if not any(getattr(loss, term) for term in TERMS):
        raise ValueError(f"loss: no term has a weight; give one, such as system.loss.{TERMS[0]}=1")
    if (loss.integer or loss.fractional) and not getattr(network, "dual_head", False):
        raise ValueError(
            f"loss: integer and fractional are of a dual head, which this {network.name} has not; "
            "system.network.dual_head=true of resnet_san has one"
        )
    positive = [term for term in OF_POSITIVE_DEPTH if getattr(loss, term)]
    if positive and getattr(network, "activation", "sigmoid") not in ("softplus", "sigmoid"):
        raise ValueError(
            f"loss: {positive[0]} needs depths above 0, and this {network.name} may give others; "
            "system.network.activation=softplus keeps them above 0"
        )
    if loss.name == "scale_adaptive" and loss.absolute_mask != "gt":
        raise ValueError(
            f"loss: scale_adaptive has gt throughout, not absolute_mask={loss.absolute_mask}; "
            "system.loss.name=g2 takes other masks"
        )


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
    point_cloud: bool = Field(True, description="also write a .ply; some megabytes a picture")
    max_height: PositiveInt | None = Field(
        None, description="rows that larger --input pictures are scaled down to, with depth and camera"
    )
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
    cache: str | None = Field(
        None, description="folder of decoded pictures that `omma prepare rgbd-cache` has written"
    )
    image_size: Size = Field((320, 320), description="[height, width] of training crops")
    val_image_size: Size | None = Field(
        None, description="[height, width] in validation; default each picture's own, in batches of one"
    )
    degradation: DegradationSection = DegradationSection()
    depth_resize: Literal["auto", "bilinear", "nearest", "scatter"] = Field(
        "auto", description="how depth follows a resize; auto scatters sparse truth"
    )
    crop_area: Annotated[float, Field(gt=0, le=1)] = Field(
        0.64, description="smallest share of a training crop that is enlarged to its size"
    )
    jitter: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="largest change of brightness, contrast and saturation in training"
    )
    hue: bool = Field(False, description="random hues in training")
    measured: Fraction = Field(
        0.0, description="chance that a measured input depth is used where there is one"
    )
    prefill: Literal["none", "nearest", "linear"] = Field(
        "none",
        description="what the network sees between given depths: nothing, as published, or a filling; a "
        "mask still tells which are given",
    )
    val_patterns: list[ValPattern] = Field(
        ["none", "uniform:1%", "full"],
        min_length=1,
        description="input depths of the validation; measured: that of raw/",
    )
    study_patterns: list[ValPattern] = Field(
        list(STUDY_PATTERNS),
        min_length=1,
        description="input depths of `omma eval --study densities`; that of raw/ is added where there is one",
    )
    scoring: ScoringSection = ScoringSection()
    predict: PredictSection = PredictSection()


class G2Config(RunConfig):
    """A recipe of G2-MonoDepth."""

    system: G2System = G2System()
    data: G2Data = G2Data()
