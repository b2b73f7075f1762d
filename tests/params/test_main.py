import shutil

import pytest
from changed_params import ROOT

from pipeline.errors import UserError
from pipeline.params import load_params
from pipeline.params.__main__ import main


def test_images_that_are_not_there_are_named_before_dvc_looks_for_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    main()
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("source: mnist-5k", "source: array"))
    path = load_params().prepare.path
    with pytest.raises(UserError) as error:
        main()
    assert str(error.value) == f"params.yaml: prepare.path is {path!r}, which does not exist; expected your images"
