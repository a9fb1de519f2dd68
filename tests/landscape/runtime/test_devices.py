"""Memory of the device."""

import platform
import subprocess
import sys

import pytest

EVALUATED = """
import resource
import torch
import landscape as ll
first, last = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.LazyLinear(2)
model = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Flatten(), last)
batch = torch.randn(128, 3, 16, 16), torch.randint(2, (128,))
model(batch[0])
objective = ll.supervised(model, [batch], torch.nn.functional.cross_entropy)
faults = []
for _ in range(11):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    objective.value()
print((faults[-1] - faults[1]) / 9)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="counts what glibc gives back to the system")
def test_an_evaluation_takes_its_memory_from_the_one_before():
    """Its activations are 512 pages of 4 kB each, which the system would have to hand out and clear."""
    found = subprocess.run(
        [sys.executable, "-c", EVALUATED], capture_output=True, text=True, check=True, timeout=120
    )
    assert float(found.stdout) < 50
