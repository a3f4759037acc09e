"""Lift-Splat-Shoot: what a recipe can set, with its defaults and help."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from omma.config.base import DataSection, NonNegativeFloat, PositiveInt, RunConfig, Section, SystemSection
from omma.core.grid import BevGrid, Bounds
from omma.data.formats.simbev_layout import DEFAULT_ORIENTATION, VEHICLE_CLASSES
from omma.errors import ConfigError
from omma.systems.axes import Axis, DepthAxis, check_axis

Size = tuple[PositiveInt, PositiveInt]
Probability = Annotated[float, Field(ge=0, lt=1)]
Layout = Literal["simbev", "simbev-seed", "simbev-cvt", "nuscenes"]

IMAGE_MULTIPLE = 32  # the coarsest feature map has stride 32 and is doubled to meet the one of stride 16
GRID_MULTIPLE = 8  # the bird's-eye-view encoder halves the grid three times


def _check_plane_axis(bounds: Bounds) -> Bounds:
    cells = BevGrid(*[check_axis(bounds)] * 3).nx[0]
    if cells % GRID_MULTIPLE:
        raise ValueError(f"holds {cells} cells; the network needs a multiple of {GRID_MULTIPLE}")
    return bounds


def _check_image_size(size: Size) -> Size:
    for side, pixels in zip(("height", "width"), size, strict=True):
        if pixels % IMAGE_MULTIPLE:
            near = max(IMAGE_MULTIPLE, round(pixels / IMAGE_MULTIPLE) * IMAGE_MULTIPLE)
            raise ValueError(f"the {side} must be a multiple of {IMAGE_MULTIPLE}, such as {near}")
    return size


PlaneAxis = Annotated[Bounds, AfterValidator(_check_plane_axis)]
ImageSize = Annotated[Size, AfterValidator(_check_image_size)]


class GridSection(Section):
    """The space that is seen: ego axes x forward, y left, z up; every axis is [low, high, step] in metres."""

    x: PlaneAxis = Field((-50.0, 50.0, 0.5), description="cells ahead; [low, high, step] in metres")
    y: PlaneAxis = Field((-50.0, 50.0, 0.5), description="cells to the left; [low, high, step] in metres")
    z: Axis = Field((-10.0, 10.0, 20.0), description="height bins; [low, high, step] in metres")
    depth: DepthAxis = Field((4.0, 45.0, 1.0), description="depths along the camera axis; `high` is excluded")

    @property
    def bev(self) -> BevGrid:
        """The grid of cells."""
        return BevGrid(self.x, self.y, self.z)


class BceLoss(Section):
    """Binary cross-entropy on logits."""

    name: Literal["bce"] = "bce"
    pos_weight: float = Field(2.13, gt=0, description="weight of occupied cells")
    class_weights: dict[str, NonNegativeFloat] = Field(
        {}, description="target name -> weight of its channel; 1 where absent"
    )


class FocalLoss(Section):
    """Focal loss: cells that are already right weigh less."""

    name: Literal["focal"]
    gamma: NonNegativeFloat = Field(2.0, description="exponent of (1 - p)")
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="weight of occupied cells; 1 - alpha for empty ones; none: both 1"
    )
    class_weights: dict[str, NonNegativeFloat] = Field(
        {}, description="target name -> weight of its channel; 1 where absent"
    )


class LSSSystem(SystemSection):
    """The network and its loss."""

    name: Literal["lss"] = "lss"
    grid: GridSection = GridSection()
    targets: dict[str, list[str]] = Field(
        {"vehicle": list(VEHICLE_CLASSES)},
        min_length=1,
        description="output channel -> classes of the data set that it unites",
    )
    backbone: str = Field(
        "tf_efficientnet_b0.aa_in1k", description="timm model with feature maps of strides 16 and 32"
    )
    pretrained: str = Field(
        "none",
        description="none; timm (ImageNet, download); auto: timm, or a notice and none where it cannot be "
        "had; or a file of backbone weights",
    )
    backbone_bn_momentum: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="backbone batch-norm momentum; default 0.01 with pretrained weights, else 0.1",
    )
    drop_path: Probability = Field(0.2, description="largest stochastic depth of the backbone")
    neck_channels: PositiveInt = Field(512, description="channels after joining both feature maps")
    context_channels: PositiveInt = Field(64, description="features a pixel that are lifted")
    context_dropout: Probability = Field(0.0, description="dropout before the depth layer")
    bev_width: PositiveInt = Field(64, description="channels of the grid encoder's first stage; 2x, 4x later")
    bev_dropout: Probability = Field(0.0, description="channel dropout in the grid encoder's decoder")
    voxel_rounding: Literal["trunc", "floor"] = Field(
        "trunc", description="trunc, as the reference, also feeds the border cells from one cell outside"
    )
    frustum: Literal["ends", "centres"] = Field(
        "ends", description="pixel of a feature: spread from edge to edge (reference) or cell centres"
    )
    loss: BceLoss | FocalLoss = Field(BceLoss(), discriminator="name")

    @model_validator(mode="after")
    def _check(self) -> Self:
        unknown = sorted(set(self.loss.class_weights) - set(self.targets))
        if unknown:
            raise ConfigError(f"loss.class_weights names {', '.join(unknown)}, which is no target")
        return self


class Augment(Section):
    """Random changes of training images; intrinsics stay, the change travels as post_rots, post_trans."""

    resize: Literal["auto"] | tuple[float, float] = Field(
        "auto",
        description="scale range of the source size; auto is 0.877 to 1.023 times the validation scale",
    )
    rotate_deg: tuple[float, float] = Field((-5.4, 5.4), description="range of the image rotation")
    flip: bool = Field(True, description="mirror images left to right, half of the time")
    bottom_crop: tuple[float, float] = Field(
        (0.0, 0.0), description="range of the share of rows cut off the bottom; validation takes the middle"
    )
    per_sample: bool = Field(False, description="one draw for all cameras of a sample instead of one each")
    bev_rotate_deg: NonNegativeFloat = Field(0.0, le=180, description="turn the ego frame by up to so much")
    bev_flip: bool = Field(
        False, description="mirror the ego frame along x and along y, each half of the time"
    )


class LSSData(DataSection):
    """Where the samples come from and how they are read."""

    layout: Literal["auto"] | Layout = Field("auto", description="folder layout; auto looks at the folder")
    version: str | None = Field(
        None, description="nuScenes: table folder such as v1.0-mini; default the only one"
    )
    split_file: str | None = Field(
        None,
        description="text file of scene names instead of the built-in split; {split} in it is train or val",
    )
    num_cameras: PositiveInt = Field(6, description="cameras a sample; 3 takes the front ones")
    cameras: list[str] | None = Field(None, description="camera names instead of num_cameras")
    camera_sampling: Literal["fixed", "random"] = Field(
        "fixed", description="random: another subset a training sample, all cameras in validation"
    )
    source_size: Size = Field(
        (224, 480), description="[height, width] that augmentation scales are relative to; files may differ"
    )
    top_crop: Annotated[int, Field(ge=0)] = Field(
        0, description="rows cut off the top, counted at source_size; 46 keeps the aspect of 1600x900 files"
    )
    image_size: ImageSize = Field((128, 352), description="[height, width] of the network's input")
    augment: Augment = Augment()
    post_scale: Literal["file", "nominal"] = Field(
        "file",
        description="recorded image scale: the true one, or the drawn one like the reference (<1 px off)",
    )
    fast_decode: bool = Field(
        False, description="decode JPEGs at half or quarter size where that suffices: faster, slightly softer"
    )
    label_frame: Literal["auto", "lss", "simbev"] = Field(
        "auto", description="orientation of stored labels: rows along +x (lss) or picture-like (simbev)"
    )
    label_cell_m: Annotated[float, Field(gt=0)] | None = Field(
        None, description="metres a cell of stored labels; default what the data set says, else 0.4 or 0.5"
    )
    orientation: str = Field(
        "auto",
        description=f"rig folder such as {DEFAULT_ORIENTATION}, or all; auto: all for simbev-seed, "
        f"{DEFAULT_ORIENTATION} for simbev-cvt",
    )
    frame_stride: PositiveInt | None = Field(
        None,
        description="every n-th frame of a scene; default 1, but 20 for simbev if its frames come at 20 Hz",
    )
    min_visibility: Annotated[int, Field(ge=1, le=4)] | None = Field(
        None, description="ignore cells of objects less visible than this, 1 (hidden) to 4 (in full view)"
    )
    blank_ego: bool = Field(False, description="clear the ego vehicle, 4.8 m x 2 m, from the labels")
    trust_pickle: bool = Field(
        False,
        description="read pickled boxes (GT_DET.bin) for checks; only NumPy arrays are admitted",
    )
    invert_extrinsics: bool = Field(
        False,
        description="feed the matrices the wrong way round: a deliberate error, for control experiments only",
    )


class LSSConfig(RunConfig):
    """A recipe of Lift-Splat-Shoot."""

    system: LSSSystem = LSSSystem()
    data: LSSData = LSSData()
