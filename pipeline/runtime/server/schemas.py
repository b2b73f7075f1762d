"""What a request may say, as OpenAPI shows it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.runtime.draws import MAX_TEMPERATURE
from pipeline.runtime.noise import INDEX_LIMIT, SEED_LIMIT


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


_Number = BeforeValidator(_refuse_bool)
_Seed = Annotated[int, Field(ge=0, le=SEED_LIMIT - 1), _Number]
_Temperature = Annotated[float, Field(ge=0, le=MAX_TEMPERATURE, allow_inf_nan=False), _Number]
_Label = Annotated[int | str, _Number]


class SampleRequest(BaseModel):
    """Which images: number `first` to `first + count - 1` of `seed`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: Annotated[int, Field(ge=1), _Number] = 1
    seed: _Seed = 0
    first: Annotated[int, Field(ge=0, le=INDEX_LIMIT - 1), _Number] = 0
    temperature: _Temperature = 1.0
    label: _Label | None = None


class InterpolateRequest(BaseModel):
    """A walk between image 0 of two seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: tuple[_Seed, _Seed]
    steps: Annotated[int, Field(ge=2), _Number] = 10
    path: Literal["spherical", "linear"] = "spherical"
    temperature: _Temperature = 1.0
    label: _Label | None = None
