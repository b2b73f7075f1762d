"""What DVC makes of settings; tests/test_pipeline.py runs real experiments."""

import pytest
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides

from pipeline.errors import UserError
from pipeline.experiment import as_settings
from pipeline.params import read_yaml


@pytest.fixture
def arrived(tmp_path, monkeypatch):
    """What a value is in the params.yaml of an experiment that it is set in."""
    monkeypatch.chdir(tmp_path)

    def arrive(value):
        (tmp_path / "params.yaml").write_text("prepare:\n  path: data\n  root: data\n")
        for file, overrides in to_path_overrides(as_settings({"prepare.path": value})).items():
            apply_overrides(file, overrides)
        return read_yaml("params.yaml")["prepare"]["path"]

    return arrive


@pytest.mark.parametrize(
    "text",
    [
        "données/é",
        "日本",
        r"C:\data",
        "C:\\data\\",
        "\\\\",
        """a "quoted" 'text'""",
        r"\" and \\" + '"',
        "a,b",
        "{a: [1, (2)]}",
        " led and trailed ",
        "a=b:c # d",
        "two\nlines\\\n",
        "${prepare.root}",
        r"\${prepare.root}",
        r"\\${a}\${b}${" + "\\",
        "null",
        "true",
        "1e-3",
        "",
    ],
)
def test_text_reaches_an_experiment_as_it_was_written(arrived, text):
    assert arrived(text) == text
    assert arrived([text, "b"]) == [text, "b"]


@pytest.mark.parametrize("value", [None, True, False, 3, -1, 0.1, 1e-05, 1e16, [], [400, 400], [[1, 2.5], [None]]])
def test_what_is_no_text_reaches_an_experiment_as_it_is(arrived, value):
    found = arrived(value)
    assert (found, type(found)) == (value, type(value))


def test_the_one_text_that_dvc_takes_for_none_is_refused():
    with pytest.raises(UserError, match=r"^prepare\.path is '\?\?\?', which DVC takes for a missing value; expected"):
        as_settings({"prepare.path": "???"})
