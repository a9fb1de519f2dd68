"""What a step frees stays with the process."""

import platform
import subprocess
import sys

import pytest

STEPPED = """
import itertools
import resource
import statistics
import sys
from pathlib import Path
import samrec
from samrec.data.synthetic import markov, write_sequences
from samrec.training.engines.solo import Solo
folder = Path(sys.argv[1])
data = folder / "data.txt"
write_sequences(markov(users=1000, items=20_000, mean_length=8).interactions, data)
taken, faults = Solo.step, []

def step(*arguments):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return taken(*arguments)

Solo.step = step
samrec.train(samrec.Config(data=str(data), method="samrec", epochs=1, batch_size=32), folder / "run", "cpu")
# The system itself takes pages away now and then, to move or to watch them; not at most steps.
print(statistics.median(after - before for before, after in itertools.pairwise(faults[5:])))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="counts what glibc gives back to the system")
def test_a_step_takes_its_memory_from_the_one_before(tmp_path):
    """The table's gradient alone is 1,250 pages of 4 kB, and SAM makes two, and the moved weights."""
    command = [sys.executable, "-c", STEPPED, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert float(found.stdout.split()[-1]) < 100
