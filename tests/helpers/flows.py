"""Flows with weights as far from those of the start as a training might take them, and the way back through any."""

import torch

from pipeline.vae.flows import FlowSize, coupling_flow, inverse_autoregressive_flow

CONTEXT = 3
MAKERS = {"coupling": coupling_flow, "iaf": inverse_autoregressive_flow}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def stir(module, wildness=0.3):
    """Give a module normal weights of that standard deviation; returns the module."""
    for seed, weights in enumerate(module.parameters()):
        weights.copy_(wildness * noise(*weights.shape, seed=seed))
    return module


def flow_with(name, latent_dim=5, layers=3, hidden=(9, 7), wildness=0.3):
    return stir(MAKERS[name](latent_dim, FlowSize(layers, hidden), CONTEXT).double(), wildness)


def back(flow, z, context):
    """The z that a flow moves to the given one: of each layer, one dimension after the other."""
    for layer in reversed(flow.layers):
        start = torch.zeros_like(z)
        for _ in range(z.shape[1]):
            moved, log_diagonal = layer(start, context)
            start = start + (z - moved) / log_diagonal.exp()
        z = start
    return z
