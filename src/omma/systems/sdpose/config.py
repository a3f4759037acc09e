"""SDPose: what a recipe can set, with its defaults and help (arXiv 2404.03518)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

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
MaskRatio = Annotated[float, Field(ge=0, lt=1)]
STRIDE = 4  # pixels of the image a heatmap cell, fixed by both backbones


class StemNetSection(Section):
    """Two strided convolutions and four bottlenecks."""

    name: Literal["stemnet"] = "stemnet"
    width: PositiveInt = Field(
        64, description="of the bottlenecks; features have four times as many channels"
    )
    pretrained: str = Field("none", description="there are no ImageNet weights of it")


class HRNetSection(Section):
    """HRNet-W32 up to its third stage, 32 channels."""

    name: Literal["hrnet_w32"]
    stage1_width: Literal[32, 64] = Field(32, description="32 as published; 64 takes all ImageNet weights")
    pretrained: str = Field(
        "auto",
        description="auto, imagenet, none or a file; auto says so and goes on from random weights where "
        "none can be fetched",
    )


Backbone = Annotated[StemNetSection | HRNetSection, Field(discriminator="name")]


class TokenDistillation(Section):
    """What differs for one kind of token; what is not set is as in `distill`."""

    loss: Literal["plain", "masked", "entropy", "none"] | None = None
    loss_weight: NonNegativeFloat | None = None
    mask_ratio: MaskRatio | None = None
    mask_strategy: Literal["random", "importance"] | None = None
    importance: Literal["attention", "peak", "norm"] | None = Field(
        None, description="score of a token; default attention for visual ones, peak for keypoint ones"
    )


class Distillation(Section):
    """Each cycle's tokens learn from those of the next cycle."""

    loss: Literal["plain", "masked", "entropy", "none"] = Field(
        "plain",
        description="plain is the published mean square, masked leaves tokens out, entropy weights them",
    )
    loss_weight: NonNegativeFloat = Field(5e-6, description="1e-6 to 1e-4 are usual")
    mask_ratio: MaskRatio = Field(
        0.3, description="share of tokens left out, of masked; 0.2 to 0.5 are usual"
    )
    mask_strategy: Literal["random", "importance"] = Field(
        "random", description="importance leaves out the tokens with the lowest scores"
    )
    entropy_range: tuple[NonNegativeFloat, NonNegativeFloat] = Field(
        (0.5, 2.0), description="weights of the surest and the least sure joint, of entropy"
    )
    detach_teacher: bool = Field(True, description="false, as published, moves both cycles")
    heatmap_weight: NonNegativeFloat = Field(0.0, description="heatmaps learn from the next cycle's too")
    visual: TokenDistillation = TokenDistillation()
    keypoint: TokenDistillation = TokenDistillation()


class SDPoseSystem(SystemSection):
    """The network and its losses."""

    name: Literal["sdpose"] = "sdpose"
    backbone: Backbone = StemNetSection()
    patch: Size = Field((4, 3), description="[rows, columns] of heatmap cells a visual token")
    dim: PositiveInt = Field(192, description="of a token")
    depth: PositiveInt = Field(12, description="layers of the encoder")
    heads: PositiveInt = 8
    mlp_ratio: Annotated[float, Field(gt=0)] = 3.0
    position: Literal["sine-full", "sine", "learnable"] = Field(
        "sine-full", description="sine-full adds positions before every layer, sine before the first"
    )
    cycles: PositiveInt = Field(2, description="passes through the encoder in training; prediction takes one")
    distill: Distillation = Distillation()
    init: Literal["published", "readout"] = Field(
        "published",
        description="first weights; with readout keypoint tokens read places from the start, for small "
        "networks on little data",
    )


class AugmentSection(Section):
    """Random changes of a person's crop in training."""

    shift: Fraction = Field(0.16, description="largest shift of the box centre, in box sides")
    shift_chance: Fraction = 0.3
    flip_chance: Fraction = 0.5
    half_body_chance: Fraction = Field(0.3, description="of people with more than 8 joints")
    half_body_draw: Literal["uniform", "published"] = Field(
        "published", description="published takes the upper body in 69 % of cases, uniform in 50 %"
    )
    scale: Fraction = Field(0.35, description="standard deviation of the zoom, and its limit")
    rotation_deg: NonNegativeFloat = Field(45.0, description="standard deviation; the limit is twice that")
    rotation_chance: Fraction = 0.6


class TargetSection(Section):
    """How joints become heatmaps."""

    encoding: Literal["unbiased", "classic", "udp", "megvii"] = "unbiased"
    sigma: Annotated[float, Field(gt=0)] = Field(2.0, description="heatmap cells")
    joint_weights: bool = Field(False, description="elbows, knees 1.2 and wrists, ankles 1.5")


class SDPoseData(DataSection):
    """A COCO keypoint data set and how people are cut out."""

    boxes: str = Field(
        "ground_truth",
        description="evaluation boxes: ground_truth, or a JSON file of a detector's boxes; the training part "
        "keeps its annotated ones",
    )
    box_score: Fraction = Field(0.0, description="lowest score of a detector's box")
    image_size: Size = Field((256, 192), description="[height, width] of a person's crop")
    padding: Annotated[float, Field(ge=1)] = Field(1.25, description="crop side over box side")
    augment: AugmentSection = AugmentSection()
    target: TargetSection = TargetSection()


class EvaluationSection(Section):
    """From heatmaps to scored people."""

    flip: bool = Field(True, description="average with the mirrored crop")
    decode: Literal["unbiased", "default", "none"] = Field(
        "unbiased",
        description="unbiased is DARK, default moves a quarter cell; targets udp and megvii bring their own",
    )
    largest_step: Annotated[float, Field(gt=0)] | None = Field(
        None, description="longer DARK steps, in cells, are not taken; default none is refused"
    )
    visible_score: Fraction = Field(0.2, description="joints above it give a person's score")
    nms: Literal["oks", "soft", "none"] = "oks"
    nms_oks: Fraction = Field(0.9, description="people more alike than this are one")


class SDPoseConfig(RunConfig):
    """A recipe of SDPose."""

    system: SDPoseSystem = SDPoseSystem()
    data: SDPoseData = SDPoseData()
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="after")
    def _check_sizes(self) -> SDPoseConfig:
        for side, length, patch in zip(
            ("height", "width"), self.data.image_size, self.system.patch, strict=True
        ):
            if length % (STRIDE * patch):
                raise ValueError(
                    f"data.image_size: {side} {length} is not a multiple of {STRIDE * patch}, "
                    f"{STRIDE} times the patch of {patch}"
                )
        if self.system.dim % self.system.heads:
            raise ValueError(
                f"system.dim {self.system.dim} is not a multiple of system.heads {self.system.heads}"
            )
        return self
