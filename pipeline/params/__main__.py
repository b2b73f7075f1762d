"""Check params.yaml before DVC reads it, whose own errors are longer."""

from pathlib import Path

from pipeline.errors import UserError, run_stage
from pipeline.params import PARAMS_FILE, load_params


def main() -> None:
    """Load params.yaml of the working directory, and look for the images that it names."""
    prepare = load_params().prepare
    if prepare.source in ("images", "array") and not Path(prepare.path).exists():
        raise UserError(f"{PARAMS_FILE}: prepare.path is {prepare.path!r}, which does not exist; expected your images")


if __name__ == "__main__":
    run_stage(main)
