"""The class of an image as a condition of the model: q(z|x, y), p(x|z, y)."""

from torch import Tensor, nn

from pipeline.errors import UserError

CONDITIONS = ("none", "label")


class Conditioned(nn.Module):
    """A network whose first layer has a bias of its own for each class.

    Before a dense layer that is what one input more for each class comes to, 1 for the class and 0 for the others;
    before a convolution, one plane more for each class, all 1 or all 0, without the zeros of its padding.
    """

    def __init__(self, network: nn.Sequential, classes: int) -> None:
        super().__init__()
        place, layer = next((k, layer) for k, layer in enumerate(network) if isinstance(layer, nn.Linear | nn.Conv2d))
        self.first, self.rest = network[: place + 1], network[place + 1 :]
        # From N(0, 1), as large as what the layer makes of its input. Biases that start small leave z to say what the
        # class is, and draws of one class then look like another.
        self.class_bias = nn.Embedding(classes, layer.weight.shape[0])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """What the network makes of x, [batch, ...], of the classes `label`, int64 [batch]."""
        x = self.first(x)
        bias = self.class_bias(label).to(x.dtype)
        outputs: Tensor = self.rest(x + bias.view(*bias.shape, *[1] * (x.ndim - 2)))
        return outputs


def check_label(label: Tensor | None, classes: int) -> None:
    """Hold that a conditional model is asked with a label, and another without.

    Raises:
        UserError: the label is missing, or is one too many.
    """
    if label is None and classes:
        raise UserError(f"label is missing; expected one of {classes} classes for each image: the model is conditional")
    if label is not None and not classes:
        raise UserError("label is given; expected none: the model has no classes (model.condition: none)")
