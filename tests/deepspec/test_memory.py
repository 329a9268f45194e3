"""Peak memory, measured in a fresh process by the kernel's own count."""

import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import torch
from deepspec import GaussNewton, Problem, spectral_density

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024

torch.set_num_threads(1)
small = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
data = torch.randn(8, 3), torch.arange(8) % 2
spectral_density(GaussNewton(Problem(small, data, memory_budget=0)), steps=4, probes=1, seed=0)

model = torch.nn.Sequential(
    torch.nn.Linear(6000, 4000), torch.nn.ReLU(), torch.nn.Linear(4000, 10)
)
data = torch.randn(16, 6000), torch.arange(16) % 10
vector = 4 * sum(p.numel() for p in model.parameters())
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
problem = Problem(model, data, batch_size=8, memory_budget=0)
print((status("VmHWM") - before) / vector)
open("/proc/self/clear_refs", "w").write("5")
spectral_density(GaussNewton(problem), steps=4, probes=1, seed=0)
print((status("VmHWM") - before) / vector)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of peak memory"
)
def test_a_density_of_g_takes_five_vectors_beside_the_model_and_a_batch() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=300
    )
    # A batch of 8 takes about a hundredth of a vector here; allocators round up.
    made, estimated = map(float, run.stdout.split())
    # Making a problem checks derivatives in float64: θ, its neighbours and their gradients.
    assert made < 11.5
    assert estimated < 5.25
