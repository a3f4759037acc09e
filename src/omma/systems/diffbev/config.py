"""DiffBEV and its baselines: what a recipe can set, with its defaults and help (spec sections 3 to 6)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from omma.config.base import DataSection, NonNegativeFloat, PositiveInt, RunConfig, Section, SystemSection
from omma.data.formats.nuscenes_classes import CLASSES
from omma.errors import ConfigError
from omma.systems.axes import Axis, DepthAxis

Size = tuple[PositiveInt, PositiveInt]
GROUPS = 16  # of the head's group normalisation


def _check_width(planes: int) -> int:
    if planes % GROUPS:
        raise ValueError(f"must be a multiple of {GROUPS}, the groups of the head's normalisation")
    return planes


Planes = Annotated[PositiveInt, AfterValidator(_check_width)]


class GridSection(Section):
    """The area ahead, in the camera's frame: x right, y down, z forward; [low, high, step] in metres."""

    x: Axis = Field((-25.0, 25.0, 0.5), description="feature cells from left to right")
    y: Axis = Field((-10.0, 10.0, 20.0), description="height, one bin; y points down")
    z: Axis = Field((1.0, 50.0, 0.5), description="feature cells from near to far; labels have half the step")
    depth: DepthAxis = Field((1.0, 50.0, 1.0), description="depths along the camera axis; `high` is excluded")


class SwinSection(Section):
    """The image encoder: a Swin transformer (arXiv 2103.14030)."""

    embed_dim: PositiveInt = Field(96, description="channels of the first stage; doubled by every next one")
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 6, 2)
    num_heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 6, 12, 24)
    window: PositiveInt = Field(7, description="tokens along the side of an attention window")
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="largest stochastic depth")
    pretrained: str = Field(
        "none",
        description="none; timm (ImageNet, download); auto: timm, or a notice and none where it cannot be "
        "had; or a file of Swin weights",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for stage, heads in enumerate(self.num_heads):
            if (self.embed_dim * 2**stage) % heads:
                raise ConfigError(
                    f"backbone.num_heads {heads} does not divide the {self.embed_dim * 2**stage} channels of "
                    f"stage {stage}"
                )
        return self


class LiftSplat(Section):
    """Lift-splat-shoot of one camera (arXiv 2008.05711)."""

    name: Literal["lift_splat"] = "lift_splat"
    cell_rounding: Literal["trunc", "floor"] = Field(
        "trunc", description="trunc, as the reference, also feeds border cells from up to one cell outside"
    )
    frustum: Literal["ends", "centres"] = Field(
        "ends", description="pixel of a feature: spread from edge to edge (reference) or cell centres"
    )
    append_depth: bool = Field(False, description="the pooled depth probability as one more channel")


class Vpn(Section):
    """View Parsing Network's layer over all positions (arXiv 1906.03560)."""

    name: Literal["vpn"]
    hidden: PositiveInt = Field(1960, description="width of its hidden layer; 490 is the light form")


class Pyva(Section):
    """Cross-view transformer of PYVA (Yang et al., CVPR 2021)."""

    name: Literal["pyva"]
    size: PositiveInt = Field(32, description="side that feature maps are resampled to")
    cycle_weight: NonNegativeFloat = Field(0.001, description="weight of the cycle loss Lcycle")


class Pon(Section):
    """Dense transformer pyramid of PON (arXiv 2003.13402) over a feature pyramid network."""

    name: Literal["pon"]


View = Annotated[LiftSplat | Vpn | Pyva | Pon, Field(discriminator="name")]


class HeadSection(Section):
    """The top-down network; its output has twice the cells of the features."""

    planes: tuple[Planes, Planes] = Field((128, 64), description="a quarter of each layer's channels")
    blocks: tuple[PositiveInt, PositiveInt] = Field((4, 4), description="bottlenecks of each layer")


class NoDiffusion(Section):
    """The baseline."""

    name: Literal["none"] = "none"


class ForkDiffusion(Section):
    """An auxiliary noise prediction on the logits, as in ldk-tokyo/DiffBEV; inference ignores it."""

    name: Literal["fork_aux"]
    weight: NonNegativeFloat = Field(1.0, description="of Ldiff")


class PaperDiffusion(Section):
    """Conditional denoising of the BEV features (DiffBEV, arXiv 2303.08333)."""

    name: Literal["paper"]
    weight: NonNegativeFloat = Field(1.0, description="of Ldiff")
    denoise: Literal["feature", "label"] = Field(
        "feature", description="what is noised: the features, or an embedding of the labels (an experiment)"
    )
    condition: Literal["fo", "fs", "sum"] = Field(
        "sum", description="features, semantics of the depth distribution, or their sum"
    )
    x_t_encoding: Literal["conv", "self_attention"] = Field(
        "conv", description="self_attention adds one such layer at the coarsest level"
    )
    prediction: Literal["eps", "v", "x0"] = Field("eps", description="what the network is trained to tell")
    fusion: Literal["cross_attention", "concat", "add"] = "cross_attention"
    widths: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (64, 128, 256), description="channels of the three levels; multiples of 8"
    )
    sample_steps: Annotated[int, Field(ge=1, le=1000)] = Field(3, description="DDIM steps at inference")
    num_timesteps: PositiveInt = Field(1000, description="length of the noise schedule")


Diffusion = Annotated[NoDiffusion | ForkDiffusion | PaperDiffusion, Field(discriminator="name")]


class NoDepthLoss(Section):
    """Depth is learned from the maps alone."""

    name: Literal["none"] = "none"


class CrossEntropyDepth(Section):
    """Cross-entropy with the nearest LiDAR depth of each feature's block, over ln(bins)."""

    name: Literal["ce"]
    weight: NonNegativeFloat = 10.0


class ExpectedDepth(Section):
    """L1 of the expected depth, as in ldk-tokyo/DiffBEV; its targets are close to noise."""

    name: Literal["l1_expected"]
    weight: NonNegativeFloat = 10.0


DepthLoss = Annotated[NoDepthLoss | CrossEntropyDepth | ExpectedDepth, Field(discriminator="name")]


class OccupancyLoss(Section):
    """Weighted binary cross-entropy on visible cells, and a pull to the prior on all others (PON)."""

    class_weights: Literal["sqrt_inverse", "inverse", "equal"] = Field(
        "sqrt_inverse", description="of positives, from the priors"
    )
    prior_weight: NonNegativeFloat = Field(0.001, description="of the cells that nobody sees")


class DiffBEVSystem(SystemSection):
    """The network and its losses."""

    name: Literal["diffbev"] = "diffbev"
    grid: GridSection = GridSection()
    classes: list[str] = Field(
        list(CLASSES), min_length=1, max_length=15, description="output channels; bit c of a label is class c"
    )
    priors: list[Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        None, description="share of each class among visible cells; default the published nuScenes shares"
    )
    backbone: SwinSection = SwinSection()
    channels: PositiveInt = Field(64, description="of the BEV features")
    view: View = LiftSplat()
    head: HeadSection = HeadSection()
    diffusion: Diffusion = NoDiffusion()
    depth_loss: DepthLoss = NoDepthLoss()
    loss: OccupancyLoss = OccupancyLoss()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.priors is not None and len(self.priors) != len(self.classes):
            raise ConfigError(f"priors has {len(self.priors)} values for {len(self.classes)} classes")
        if self.priors is None and not set(self.classes) <= set(CLASSES):
            foreign = next(name for name in self.classes if name not in CLASSES)
            raise ConfigError(f"priors: {foreign} has no published share; give one value for each class")
        if self.view.name != "lift_splat":
            self._check_needs_lift_splat()
        return self

    def _check_needs_lift_splat(self) -> None:
        needing = {
            "depth_loss": self.depth_loss.name != "none",
            "diffusion.condition": self.diffusion.name == "paper" and self.diffusion.condition != "fo",
        }
        for key, needs in needing.items():
            if needs:
                raise ConfigError(
                    f"{key}: view {self.view.name} has no depth distribution; only lift_splat has one"
                )


class DiffBEVData(DataSection):
    """Where the images, labels and depths come from and how they are read."""

    layout: Literal["auto", "tables", "folders", "kitti"] = Field(
        "auto", description="tables: samples/ and v1.0-*; folders: img_dir and calib.json; auto looks"
    )
    version: str | None = Field(None, description="table folder such as v1.0-trainval; default the only one")
    split_lists: Literal["pon", "official"] = Field(
        "pon", description="scene lists of tables: those of PON that published numbers use, or the official"
    )
    split_file: str | None = Field(
        None,
        description="text file of scene names instead of the built-in lists; {split} in it is train or val",
    )
    cameras: list[str] | None = Field(None, description="only images of these cameras; default all")
    image_size: Size = Field((600, 800), description="[height, width] of the network's input")
    photometric: Literal["reference", "one_pass", "none"] = Field(
        "reference",
        description="colour changes in training; one_pass is faster and rounds once",
    )
    flip: bool = Field(False, description="mirror training images, labels and calibration half of the time")
    intrinsics_noise: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="relative error of focal lengths and principal point, fixed for each image"
    )
    fast_decode: bool = Field(
        False, description="decode JPEGs at half or quarter size where that suffices: faster, softer"
    )
    mask_file: str | None = Field(None, description="kitti: picture of the cells that count")


class DiffBEVConfig(RunConfig):
    """A recipe of DiffBEV or of one of its baselines."""

    system: DiffBEVSystem = DiffBEVSystem()
    data: DiffBEVData = DiffBEVData()
