"""Features by torchvision's Inception v3, from a file of weights on this machine; nothing is ever downloaded.

The weights of most published FIDs are those of another port of the network, so figures are near theirs, not equal.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipeline.errors import UserError, one_line
from pipeline.quality.inputs import in_batches

_SIDE = 299


class Inception:
    """Inception v3 up to its last pooling.

    Args:
        weights: a state dict as torchvision publishes it: a .safetensors file, or one that torch.save wrote.

    Raises:
        UserError: the file is missing, unreadable, or holds other weights.
    """

    def __init__(self, weights: Path) -> None:
        from torchvision.models import inception_v3  # seconds of imports, for those alone who have its weights

        network = inception_v3(weights=None, init_weights=False, transform_input=False)
        try:
            network.load_state_dict(_read(weights))
        except RuntimeError as error:
            problem = str(error).splitlines()[1].strip()
            raise UserError(f"{weights}: {problem[:160]}; expected torchvision's Inception v3") from None
        network.fc = nn.Identity()
        self._network = network.eval()

    def features(self, images: Tensor) -> Tensor:
        """The features of uint8 [n, C, H, W], C 1 or 3, resized to 299 x 299: float32 [n, 2048]."""
        return in_batches(lambda batch: self._network(_input(batch)), images)


def _input(images: Tensor) -> Tensor:
    x = images.float() / 127.5 - 1
    x = x.expand(-1, 3, -1, -1)
    return interpolate(x, (_SIDE, _SIDE), mode="bilinear", antialias=True)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"evaluate.inception_weights: {path} not found; expected a file of weights, or null") from None
    except Exception as error:  # what torch.load raises has no base of its own
        raise UserError(f"{path}: not readable as weights ({one_line(error, 120)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {type(content).__name__}; expected a state dict of torchvision's Inception v3")
    return content
