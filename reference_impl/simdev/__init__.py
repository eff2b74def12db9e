"""A simulated accelerator: the device `simdev` with the process-group backend `simccl`.

Its memory is host memory and its work is done at the call, but torch takes it for an accelerator: it is
registered out of tree through PrivateUse1, as a vendor's device is. Importing this package changes nothing;
`register` does. SIMDEV_COUNT sets the number of devices of a process, by default 8.
"""

from __future__ import annotations

from .build import BuildError, build_extension
from .registration import BACKEND_NAME, DEVICE_TYPE, register

__all__ = ["BACKEND_NAME", "DEVICE_TYPE", "BuildError", "build_extension", "register"]
