import importlib
import re

import pytest

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
