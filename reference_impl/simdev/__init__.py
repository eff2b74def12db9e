"""A simulated accelerator: the device `simdev` with the process-group backend `simccl`.

Its memory is host memory and its work is done at the call, but torch takes it for an accelerator: it is
registered out of tree through PrivateUse1, as a vendor's device is. Importing this package changes nothing;
`register` does. SIMDEV_COUNT sets the number of devices, by default 8, of which SIMDEV_VISIBLE_DEVICES,
numbers with commas, shows some to a process, renumbered from 0.
"""

from __future__ import annotations

from .build import BuildError, build_extension
from .registration import BACKEND_NAME, DEVICE_TYPE, register
from .settings import device_count

__all__ = ["BACKEND_NAME", "DEVICE_TYPE", "BuildError", "build_extension", "device_count", "register"]
