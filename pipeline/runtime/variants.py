"""Smaller arithmetic for the same model: `sampler.int8.onnx` stands beside `sampler.onnx`."""

from typing import Literal, get_args

from pipeline.errors import UserError

Variant = Literal["fp16", "int8"]

VARIED = ("sampler.onnx", "decoder.onnx")


def variant_file(name: str, variant: Variant | None) -> str:
    """The file that holds a graph in a variant; `name` itself for None, and for graphs that are float32 alone.

    Raises:
        UserError: there is no such variant.
    """
    if variant is None:
        return name
    if variant not in get_args(Variant):
        raise UserError(
            f"variant is {variant!r}; expected one of {', '.join(get_args(Variant))}; without one the files are float32"
        )
    return f"{name.removesuffix('.onnx')}.{variant}.onnx" if name in VARIED else name


def variant_of(file: str) -> str | None:
    """The variant that a file's name says, None for float32: `decoder.int8.onnx` -> int8."""
    return next((variant for variant in get_args(Variant) if file.endswith(f".{variant}.onnx")), None)
