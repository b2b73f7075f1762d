"""params.yaml, checked: the only reader of YAML, and the only place where a value's range is written down.

There are no defaults here: every value stands once, in params.yaml.
"""

from pipeline.params.document import (
    PARAMS_FILE,
    Params,
    check_params,
    copy_sections,
    flatten,
    load_params,
    parse_setting,
    read_recipe,
    read_yaml,
)
from pipeline.params.sections import EvaluateParams, ExportParams, HealthParams, ModelParams, PrepareParams, TrainParams

__all__ = [
    "PARAMS_FILE",
    "EvaluateParams",
    "ExportParams",
    "HealthParams",
    "ModelParams",
    "Params",
    "PrepareParams",
    "TrainParams",
    "check_params",
    "copy_sections",
    "flatten",
    "load_params",
    "parse_setting",
    "read_recipe",
    "read_yaml",
]
