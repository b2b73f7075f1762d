"""What a request may say, as OpenAPI shows it."""

from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.errors import UserError
from pipeline.runtime.draws import MAX_TEMPERATURE
from pipeline.runtime.noise import INDEX_LIMIT, SEED_LIMIT


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


def _name_or_index(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("expected the name of a class, or its index")
    return value


_Number = BeforeValidator(_refuse_bool)
_Seed = Annotated[int, Field(ge=0, le=SEED_LIMIT - 1), _Number]
_Temperature = Annotated[float, Field(ge=0, le=MAX_TEMPERATURE, allow_inf_nan=False), _Number]
_Label = Annotated[int | str, BeforeValidator(_name_or_index)]  # pydantic's own error names both types


class Fields(BaseModel):
    """The fields of a query or of a JSON body; a name that is none of them is an error that lists them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, given: Any) -> Any:
        *others, last = cls.model_fields
        known = f"{', '.join(others)} or {last}" if others else last
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                raise ValueError(f"{name!r:.60} is not known; expected {known}")
        return given


class SampleRequest(Fields):
    """Which images: number `first` to `first + count - 1` of `seed`."""

    count: Annotated[int, Field(ge=1), _Number] = 1
    seed: _Seed = 0
    first: Annotated[int, Field(ge=0, le=INDEX_LIMIT - 1), _Number] = 0
    temperature: _Temperature = 1.0
    label: _Label | None = None


class InterpolateRequest(Fields):
    """A walk between image 0 of two seeds; without `path`, spherical where they are drawn from the standard normal."""

    seeds: tuple[_Seed, _Seed]
    steps: Annotated[int, Field(ge=2), _Number] = 10
    path: Literal["spherical", "linear"] | None = None
    temperature: _Temperature = 1.0
    label: _Label | None = None


class DecodeQuery(Fields):
    """What stands beside latents."""

    label: str | None = None


class EncodeQuery(DecodeQuery):
    """What stands beside images; `resize` stretches a picture to the model's size, else another size is refused."""

    resize: bool = False


class ScoreQuery(EncodeQuery):
    """What stands beside images to score; with `error_map`, raw and .npy hold the error in place of the score."""

    error_map: bool = False


async def refuse_query(request: Request) -> None:
    """Hold that all fields stand in the body: one in the query would do nothing.

    Raises:
        UserError: the query has a field.
    """
    for name in request.query_params:
        raise UserError(f"{name!r:.60} stands in the query; expected all fields in the body")
