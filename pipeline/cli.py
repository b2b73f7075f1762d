"""`vae`: the command for people. It needs the runtime alone, but for `compare` and models named `models:/NAME@ALIAS`,
which load mlflow; torch and dvc stay unloaded."""

import typer

from pipeline.commands.compare import compare
from pipeline.commands.decode import decode
from pipeline.commands.encode import encode
from pipeline.commands.explorer import explorer
from pipeline.commands.info import info
from pipeline.commands.interpolate import interpolate
from pipeline.commands.reconstruct import reconstruct
from pipeline.commands.sample import sample
from pipeline.commands.score import score
from pipeline.commands.serve import serve
from pipeline.errors import run_stage

app = typer.Typer(
    help="Draw images from a trained variational auto-encoder, look into its exported files, compare its runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (sample, interpolate, encode, decode, reconstruct, score, serve, explorer, compare, info):
    app.command()(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a user's mistake is one line on stderr and exit code 1."""
    run_stage(lambda: app(args=arguments, prog_name="vae"))


if __name__ == "__main__":
    main()
