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
