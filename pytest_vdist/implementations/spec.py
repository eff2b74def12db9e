"""From the text of `--vdist-impl` to the implementation under test."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from pytest_vdist.implementations.protocol import Capabilities

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Implementation

BUILT_IN = {
    "reference": "pytest_vdist.implementations.reference:ReferenceImplementation",
    "torch": "pytest_vdist.implementations.torch_distributed:TorchDistributed",
    "vllm": "pytest_vdist.implementations.vllm:VllmImplementation",
}
_FORMS = "pkg.mod:factory or file.py:factory"
_METHODS = ("capabilities", "init", "coordinator", "destroy")


class ImplementationError(Exception):
    """Raised when the implementation under test is unknown, cannot be loaded or is incomplete."""


@dataclass(frozen=True)
class ImplementationSpec:
    """How to make the implementation under test, in the controller and in every rank.

    `name` is what the user wrote, `target` the module or absolute file and the factory within it
    (`pkg.mod:factory`, `/dir/file.py:factory`), `origin` where the text came from. Can be pickled.
    """

    name: str
    target: str
    origin: str

    @classmethod
    def resolve(cls, text: str, origin: str) -> ImplementationSpec:
        """Read the text without importing anything. A file is looked for from the current directory.

        Raises ImplementationError for an unknown name, a malformed target and a file that is not there.
        """
        if text in BUILT_IN:
            return cls(text, BUILT_IN[text], origin)
        place, colon, factory = text.rpartition(":")
        if not colon:
            raise ImplementationError(
                f"unknown implementation, got {text!r} from {origin}; "
                f"the known ones are {', '.join(BUILT_IN)}, or pass {_FORMS}"
            )
        if not factory.isidentifier() or not (place.endswith(".py") or _is_module_name(place)):
            raise ImplementationError(f"implementation must look like {_FORMS}, got {text!r} from {origin}")
        if place.endswith(".py"):
            place = str(Path(place).absolute())
            if not Path(place).is_file():
                raise ImplementationError(f"no file at {place}, got {text!r} from {origin}; pass {_FORMS}")
        return cls(text, f"{place}:{factory}", origin)

    def load(self) -> Implementation:
        """Import the module, call the factory and return the implementation, of which nothing is started yet.

        Raises ImplementationError when the module cannot be imported, has no such factory, or when the
        factory raises or gives something that lacks part of the protocol.
        """
        place, _, attribute = self.target.rpartition(":")
        module = self._import(place)
        if not hasattr(module, attribute):
            raise self._error(f"{place} has no {attribute!r}")
        factory = getattr(module, attribute)
        if not callable(factory):
            raise self._error(f"{self.target} must be callable without arguments, got {factory!r}")
        try:
            implementation = factory()
        except Exception as error:
            raise self._error(f"{self.target} raised {type(error).__name__}: {error}") from error
        return self._checked(implementation)

    def capabilities(self, device_type: str) -> Capabilities:
        """Load the implementation and return what it claims for a device type.

        Raises ImplementationError also where it raises, or returns something else.
        """
        implementation = self.load()
        call = f"implementation {self.name!r} from {self.origin}: capabilities({device_type!r})"
        try:
            claims: object = implementation.capabilities(device_type)
        except Exception as error:
            raise ImplementationError(f"{call} raised {type(error).__name__}: {error}") from error
        if not isinstance(claims, Capabilities):
            raise ImplementationError(f"{call} must return pytest_vdist.Capabilities, got {claims!r}")
        return claims

    def _import(self, place: str) -> ModuleType:
        try:
            return _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        except Exception as error:
            raise self._error(f"cannot import {place}: {type(error).__name__}: {error}") from error

    def _checked(self, implementation: object) -> Implementation:
        missing = [name for name in _METHODS if not callable(getattr(implementation, name, None))]
        if missing:
            raise self._error(f"{implementation!r} lacks the methods {', '.join(missing)} of Implementation")
        name = getattr(implementation, "name", None)
        if not isinstance(name, str) or not name:
            raise self._error(f"{implementation!r} must have a name of one letter or more, got {name!r}")
        return cast("Implementation", implementation)

    def _error(self, problem: str) -> ImplementationError:
        return ImplementationError(
            f"cannot load the implementation, got {self.name!r} from {self.origin}: {problem}; "
            f"pass a factory that can be imported here, as {_FORMS}, or {', '.join(BUILT_IN)}"
        )


def _is_module_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _import_file(path: Path) -> ModuleType:
    """Import a file under a name that is the same in every process, so that its objects can be pickled."""
    name = f"vdist_implementation_{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError(f"no loader for {path}")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
