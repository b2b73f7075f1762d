import importlib
import re

import pytest

from pipeline.errors import UserError

POSITIONAL = {
    "prepare": ["prepared"],
    "train": ["prepared", "checkpoint", "scratch"],
    "evaluate": ["prepared", "checkpoint", "report"],
    "export": ["data", "checkpoint", "evaluation", "models", "reports"],
}


@pytest.mark.parametrize("stage", POSITIONAL)
def test_help_says_what_each_argument_is_and_does_nothing_else(stage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [stage, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"pipeline.{stage}").main()
    told = capsys.readouterr().out
    assert not ended.value.code
    assert " ".join(told.split()).startswith(f"usage: python -m pipeline.{stage} [-h] {' '.join(POSITIONAL[stage])} ")
    assert "params.yaml" in told.partition("positional arguments:")[0]
    assert re.findall(r"^  (\w+) +\S", told.partition("positional arguments:")[2], re.MULTILINE) == POSITIONAL[stage]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stage", "output"), [("train", 1), ("evaluate", 2), ("export", 3), ("export", 4)], ids=lambda value: str(value)
)
def test_an_output_that_cannot_be_written_is_found_before_anything_is_read(stage, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    places = [*POSITIONAL[stage]]
    places[output] = f"taken/{places[output]}"
    monkeypatch.setattr("sys.argv", [stage, *places])
    with pytest.raises(UserError, match=rf"^{places[output]}: cannot be written \(Not a directory\); expected a place"):
        importlib.import_module(f"pipeline.{stage}").main()
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
