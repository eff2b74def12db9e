"""A dense transformer over ranks: `torchrun --nproc-per-node=2 suites/torchrun/dense.py`.

Every rank takes its part of the model, in each layout that the ranks allow, and generates tokens, which must
be those of one process. `--help` lists what can be chosen.
"""

from __future__ import annotations

import sys

from pytest_vdist import compiled
from pytest_vdist.reference_impl.models import DENSE, main

if __name__ == "__main__":
    sys.exit(main(DENSE, compiled))
