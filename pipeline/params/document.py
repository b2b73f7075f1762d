"""params.yaml as a whole: read, and checked by its sections and their combinations."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator
from ruamel.yaml import YAML, ScalarNode
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import UserError, one_line
from pipeline.params.combinations import check_combinations
from pipeline.params.messages import describe
from pipeline.params.sections import (
    EvaluateParams,
    ExportParams,
    HealthParams,
    ModelParams,
    PrepareParams,
    Section,
    TrainParams,
)

PARAMS_FILE = Path("params.yaml")

RUNNING = ("checkpoint_minutes", "devices", "nodes")
"""Of `train`: how a training is run; they change the weights by rounding at most."""

_UNREADABLE = (ValueError, OverflowError, LookupError, TypeError)
"""What ruamel lets through of a value that is not of the kind it looks like."""


class Params(Section):
    """The whole of params.yaml, one section for each stage and one for the model."""

    prepare: PrepareParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams
    health: HealthParams
    export: ExportParams

    @model_validator(mode="after")
    def _combinations_make_sense(self) -> "Params":
        check_combinations(self.model, self.train, self.evaluate, self.export)
        return self

    def digest(self) -> str:
        """sha256 of all values that shape a trained model, in a canonical form, as 64 hexadecimal digits.

        Where the images lie and how a training is run (RUNNING, the device) are left out: the same recipe has the same
        digest on every machine. What the images are, the sha256 of the prepared data says.
        """
        elsewhere = {"prepare": {"root", "path"}, "train": {*RUNNING, "device"}}
        values = self.model_dump(mode="json", include={"prepare", "model", "train"}, exclude=elsewhere)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def flatten(section: BaseModel, prefix: str) -> dict[str, Any]:
    """`{"train.beta": 1.0, ...}` of one section: the form in which MLflow shows params."""
    return {f"{prefix}.{name}": value for name, value in section.model_dump(mode="json").items()}


def load_params(path: Path | str = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        UserError: the file is missing or not YAML, a name is unknown or missing, or a value is out of range.
    """
    return check_params(read_yaml(path), path)


def check_params(content: dict[str, Any], source: Path | str) -> Params:
    """Check `content`; errors name `source`.

    Raises:
        UserError: a name is unknown or missing, or a value is out of range.
    """
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {describe(error.errors(), Params)}") from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML 1.2 mapping, as DVC reads it (`1e-3` is a number, a repeated key is an error).

    Raises:
        UserError: the file is missing, is not YAML, or is not a mapping of names.
    """
    path = Path(path)
    try:
        content = _parse_yaml(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            _check_names(content, path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found in {Path.cwd()}; expected the pipeline's params") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        problem = (error.problem or error.context or "unreadable").splitlines()[0]
        raise UserError(f"{path}: YAML syntax error at {place}: {problem}") from None
    except YAMLError as error:
        raise UserError(f"{path}: YAML error: {one_line(error)}") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply, or holds itself; expected sections such as 'train:'") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {type(content).__name__}; expected sections such as 'train:'")
    return content


def read_recipe(path: Path, kind: str = "recipe") -> dict[str, Any]:
    """As `read_yaml`; where the file is not there, the error names those beside it.

    Raises:
        UserError: that is so, or it is none that `read_yaml` reads.
    """
    if not path.is_file():
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
        raise UserError(f"{path}: no such {kind}; in {path.parent} there are: {others}")
    return read_yaml(path)


def copy_sections(content: dict[str, Any], source: Path | str = PARAMS_FILE) -> dict[str, dict[str, Any]]:
    """The sections of params, to be changed; errors name `source`.

    Raises:
        UserError: what stands under a name is no section, as where it is empty.
    """
    for name, section in content.items():
        if not isinstance(section, dict):
            raise UserError(f"{source}: {name} is {section!r}; expected a section of named params")
    return {name: dict(section) for name, section in content.items()}


def parse_setting(setting: str) -> tuple[str, Any]:
    """`train.beta=4` -> `("train.beta", 4)`; the value is YAML, and what is none is text.

    Raises:
        UserError: it has no `=`.
    """
    name, equals, text = setting.partition("=")
    if not equals:
        raise UserError(f"{setting!r} is no setting; expected section.param=value")
    try:
        return name, _parse_yaml(text)
    except (YAMLError, RecursionError):
        return name, text


class _Constructor(SafeConstructor):
    """Names the place of a value that is not of the kind it looks like, as the 30th of February."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _UNREADABLE as error:
            if not isinstance(node, ScalarNode):
                raise
            kind, reason = str(node.tag).rpartition(":")[2], one_line(error, 80)
            problem = f"{node.value[:40]!r} is no {kind} ({reason}); expected one, or quotes around a text"
            raise ConstructorError(None, None, problem, node.start_mark) from None


def _parse_yaml(text: str) -> Any:
    """Raises YAMLError, or RecursionError where it is nested too deeply."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except _UNREADABLE as error:
        raise YAMLError(one_line(error)) from None


def _check_names(content: dict[Any, Any], path: Path) -> None:
    for name, value in content.items():
        if not isinstance(name, str):
            raise UserError(f"{path}: {name!r} stands before a colon; expected a name")
        if isinstance(value, dict):
            _check_names(value, path)
