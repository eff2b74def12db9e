"""A mixture of experts over ranks: `torchrun --nproc-per-node=2 suites/torchrun/moe.py`.

Layouts with expert groups keep different experts on different ranks, and send tokens to where their experts
are; the others split every expert. The tokens must be those of one process.
"""

from __future__ import annotations

import sys

from pytest_vdist import compiled
from pytest_vdist.reference_impl.models import MIXTURE, main

if __name__ == "__main__":
    sys.exit(main(MIXTURE, compiled))
