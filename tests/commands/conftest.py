import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.cli import main


@pytest.fixture
def vae(capsys, monkeypatch, tmp_path, mlp):
    """Runs `vae` on the small model in an empty folder of its own; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--model", str(mlp.folder), "--device", "cpu"])
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def digits8():
    """Real digits, uint8 [12, 8, 8, 1]."""
    return (load_digits().images[:12] * 255 / 16).round().astype(np.uint8)[..., None]


@pytest.fixture
def photos(tmp_path, digits8):
    """The digits as a folder of PNG files, half of them in a folder inside it."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, image in enumerate(digits8):
        place = folder if number < 6 else folder / "more"
        Image.fromarray(image[..., 0]).save(place / f"{number:02}.png")
    return folder
