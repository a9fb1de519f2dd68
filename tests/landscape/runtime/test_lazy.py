"""Names that are imported where they are first used."""

import subprocess
import sys

import pytest

import landscape
import samrec
from landscape import plots


@pytest.mark.parametrize("package", [landscape, plots, samrec], ids=lambda package: package.__name__)
def test_names_are_completed_before_they_are_used(package):
    assert set(package.__all__) <= set(dir(package))
    assert set(vars(package)) <= set(dir(package))


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one():
    asked = subprocess.run(
        [sys.executable, "-c", "import landscape; landscape.top_eigenvalues"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no attribute 'top_eigenvalues'. Did you mean: 'top_eigenpairs'?" in asked.stderr


def test_completion_imports_nothing():
    code = "import sys, landscape; dir(landscape); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_measuring_does_not_import_torchs_compiler():
    """It takes seconds, and torch imports it as soon as an operation is watched the usual way."""
    code = """
import sys, torch, landscape as ll
model, batch = torch.nn.Linear(3, 2), (torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))
objective = ll.supervised(model, [batch], torch.nn.CrossEntropyLoss())
ll.top_eigenpairs(objective, memory="1 MB"), ll.plane(objective, grid=3)
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
