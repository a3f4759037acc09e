"""The sections that every recipe has, and the Period that counts in steps or epochs.

Defaults and help texts live here and in a system's `config.py`, once. Values are checked strictly: a
string is never taken for a number, an unknown key is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema


class Section(BaseModel):
    """A frozen group of keys that refuses unknown ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


@dataclass(frozen=True)
class Period:
    """A length or an interval: so many optimiser steps, or so many passes over the training data.

    Written `500` (steps) or `"2 epochs"` in a recipe.

    Args:
        count: how many; at least 0.
        unit: "steps" or "epochs".
    """

    count: int
    unit: Literal["steps", "epochs"] = "steps"

    def steps(self, steps_per_epoch: int) -> int:
        """The period in optimiser steps."""
        return self.count * steps_per_epoch if self.unit == "epochs" else self.count

    def due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether the period ends with this step (counted from 1); a period of 0 never does."""
        every = self.steps(steps_per_epoch)
        return every > 0 and step % every == 0

    def __str__(self) -> str:
        plural = "epoch" if self.count == 1 else "epochs"
        return f"{self.count} {plural}" if self.unit == "epochs" else str(self.count)

    @classmethod
    def parse(cls, value: Any) -> Period:
        """Read `500`, `"500"`, `"500 steps"`, `"1 epoch"` or `"2 epochs"`.

        Raises:
            ValueError: with the accepted forms.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            count, unit = value, "steps"
        elif isinstance(value, str):
            number, _, word = value.strip().partition(" ")
            unit = {
                "": "steps",
                "step": "steps",
                "steps": "steps",
                "epoch": "epochs",
                "epochs": "epochs",
            }.get(word.strip().lower(), "")
            count = int(number) if number.lstrip("-").isdigit() and unit else -1
        else:
            count, unit = -1, ""
        if count < 0:
            raise ValueError("a period is a number of steps such as 500, or '2 epochs'")
        return cls(count, "epochs" if unit == "epochs" else "steps")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda period: period.count if period.unit == "steps" else str(period)
            ),
            json_schema_input_schema=core_schema.union_schema(
                [core_schema.int_schema(ge=0), core_schema.str_schema(pattern=r"^\d+( (steps?|epochs?))?$")]
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "examples": ["2 epochs"]}]}


@dataclass(frozen=True)
class Share:
    """A part of the whole training, written `"10 %"` in a recipe.

    Args:
        percent: of all steps, in [0, 100].
    """

    percent: float

    def steps(self, total: int) -> int:
        """Whole optimiser steps of `total`, rounded down."""
        return int(total * self.percent / 100)

    def __str__(self) -> str:
        return f"{self.percent:g} %"


def _read_warmup(value: Any) -> Period | Share:
    if isinstance(value, Share):
        return value
    number, percent, rest = value.partition("%") if isinstance(value, str) else ("", "", "")
    try:
        if percent and not rest.strip() and 0 <= float(number) <= 100:
            return Share(float(number))
        return Period.parse(value)
    except ValueError:
        forms = "a warm-up is a number of steps such as 500, or '2 epochs', or a share such as '10 %'"
        raise ValueError(forms) from None


def _written_warmup(warmup: Period | Share) -> int | str:
    return warmup.count if isinstance(warmup, Period) and warmup.unit == "steps" else str(warmup)


Warmup = Annotated[
    Period | Share,
    PlainValidator(_read_warmup, json_schema_input_type=int | str),
    PlainSerializer(_written_warmup, return_type=int | str),
]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class SystemSection(Section):
    """What a system's own `system:` section starts from."""

    name: str = Field(description="the system; names the folder under omma.systems")


class DataSection(Section):
    """What a system's own `data:` section starts from."""

    root: str | None = Field(
        None, description="the data set's folder; also OMMA_DATA_<SYSTEM> or the user's data.yaml"
    )
    limit: PositiveInt | None = Field(None, description="use only the first N training samples")
    train_split: str = Field("train", description="part of the data set that is trained on")
    val_split: str = Field("val", description="part that is validated on, and default of `omma eval`")


class Optim(Section):
    """The optimiser."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0, description="learning rate after warm-up")
    weight_decay: NonNegativeFloat = 0.0
    decay: Literal["all", "weights"] = Field(
        "all",
        description="weights: no weight decay on biases, norms and factors, which have one axis or none",
    )
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    momentum: NonNegativeFloat = Field(0.9, description="sgd only")
    grad_clip: Annotated[float, Field(gt=0)] | None = Field(
        None, description="largest L2 norm of all gradients together"
    )


class _Schedule(Section):
    warmup: Warmup = Field(Period(0), description="linear warm-up; also a share of all steps, such as '10 %'")
    warmup_factor: Fraction = Field(0.001, description="factor of the learning rate at the first step")


class ConstantSchedule(_Schedule):
    """The learning rate stays."""

    name: Literal["constant"] = "constant"


class StepSchedule(_Schedule):
    """The learning rate is multiplied by gamma every so often, or at given times."""

    name: Literal["step"]
    every: Period = Field(Period(30, "epochs"), description="unless `at` is given")
    at: list[Period] | None = Field(None, description="such as ['200 epochs', '260 epochs']")
    gamma: float = Field(0.1, gt=0)


class CosineSchedule(_Schedule):
    """Half a cosine from the learning rate down to final_factor of it."""

    name: Literal["cosine"]
    final_factor: Fraction = 0.0


class LinearSchedule(_Schedule):
    """A straight line after the warm-up, from the learning rate down to final_factor of it."""

    name: Literal["linear"]
    final_factor: Fraction = 0.0


class PolySchedule(_Schedule):
    """(1 - progress)^power, not below final_factor."""

    name: Literal["poly"]
    power: float = Field(0.9, gt=0)
    final_factor: Fraction = 0.0


class PlateauSchedule(_Schedule):
    """Multiplied by gamma when the best metric has not improved for `patience` validations."""

    name: Literal["plateau"]
    patience: PositiveInt = 5
    gamma: float = Field(0.1, gt=0, lt=1)
    min_factor: Fraction = Field(1e-4, description="never below this factor of the learning rate")


Schedule = Annotated[
    ConstantSchedule | StepSchedule | CosineSchedule | LinearSchedule | PolySchedule | PlateauSchedule,
    Field(discriminator="name"),
]


class EarlyStop(Section):
    """Stop when the best metric has not improved for so many validations."""

    patience: PositiveInt
    min_delta: NonNegativeFloat = 0.0


Precision = Annotated[
    Literal["32", "bf16-mixed", "16-mixed"],
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    PlainSerializer(lambda value: int(value) if value == "32" else value),
    WithJsonSchema({"enum": [32, "32", "bf16-mixed", "16-mixed"]}),
]


class Train(Section):
    """The training loop."""

    length: Period = Field(Period(100, "epochs"), description="steps such as 20000, or '100 epochs'")
    batch_size: PositiveInt | Literal["auto"] = Field(
        4, description="samples a device and micro-step; auto searches the largest that fits"
    )
    accumulate: PositiveInt = Field(1, description="micro-steps an optimiser step")
    precision: Precision = "32"
    channels_last: bool = Field(False, description="channels-last memory format for convolutions")
    compile: bool = Field(False, description="torch.compile on the network's parts")
    activation_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, more time"
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay of averaged weights; evaluation then uses these"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:1")
    devices: PositiveInt = Field(1, description="processes on this machine")
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        "auto", description="of several processes: ddp (auto), or fsdp, which shards network and optimiser"
    )
    workers: Annotated[int, Field(ge=0)] = Field(4, description="processes that load data, a device")
    early_stop: EarlyStop | None = None


class Validate(Section):
    """When and on what the model is validated; the last step always validates."""

    every: Period = Period(1, "epochs")
    batch_size: PositiveInt | None = Field(None, description="default: train.batch_size")
    limit: PositiveInt | None = Field(None, description="validate on the first N samples only")


class Save(Section):
    """When checkpoints are written; the last step always saves."""

    every: Period = Period(1, "epochs")
    keep_last: PositiveInt = 3
    best: str | None = Field(None, description="metric of best/, such as val/iou; default: the system's own")
    reference: bool = Field(False, description="also write files in the original project's format and names")


class Wandb(Section):
    """Mirror to Weights & Biases."""

    project: str = "omma"
    name: str | None = None
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


class Log(Section):
    """What is logged and how often."""

    every: PositiveInt = Field(10, description="optimiser steps")
    tensorboard: bool = True
    wandb: Wandb | None = None


class RunConfig(Section):
    """A whole recipe; a system narrows `system` and `data`."""

    system: SystemSection
    data: DataSection
    optim: Optim = Optim()
    schedule: Schedule = ConstantSchedule()
    train: Train = Train()
    validation: Validate = Field(Validate(), alias="validate")
    save: Save = Save()
    log: Log = Log()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    deterministic: bool = Field(False, description="deterministic kernels also on a GPU; slower")

    def as_dict(self) -> dict[str, Any]:
        """Plain values under the recipe's own key names; YAML of it is a recipe again."""
        return self.model_dump(mode="json", by_alias=True)
