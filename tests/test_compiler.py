import os
import subprocess
import sys


def test_stages_that_compile_nothing_load_no_compiler():
    """Nor torchvision: each of them costs a stage's start as much as torch itself does."""
    code = """
import sys
import pipeline.train, pipeline.evaluate, pipeline.export
print([name for name in ("torch._dynamo", "torchvision") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_step_and_a_bound_that_are_not_compiled_load_no_computer_algebra():
    """What torch has for symbolic shapes takes a process longer to load than a small training does to begin."""
    code = """
import sys
import torch
from pipeline.vae.bounds import elbo
from pipeline.vae.model import VAE, VAEConfig
for likelihood, sigma in (("bernoulli", 1.0), ("gaussian", "learned"), ("discretized_logistic", 1.0)):
    vae = VAE(VAEConfig((1, 8, 8), "mlp", (16,), "relu", 4, likelihood, sigma))
    elbo(vae, torch.rand(2, 1, 8, 8), torch.randn(2, 4)).elbo.sum().backward()
print("sympy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_the_search_for_a_better_q_loads_no_compiler():
    """Every step of torch.optim's own asks for it: two seconds of each evaluation."""
    code = """
import sys
import torch
from linear import images, linear_vae, split
from pipeline.metrics.amortisation import amortisation_gap
vae = linear_vae()
amortisation_gap(vae, split(vae, images(2)), torch.arange(2), 0)
print("torch._dynamo" in sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "False"
