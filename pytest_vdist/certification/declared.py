"""An implementation whose claims a manifest replaces."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vdist.certificate.manifest import Manifest, parse_manifest
from pytest_vdist.certificate.tables import FileError
from pytest_vdist.implementations.protocol import Capabilities, InitSettings
from pytest_vdist.implementations.spec import ImplementationSpec

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Coordinator, Implementation


@dataclass(frozen=True)
class DeclaredSpec(ImplementationSpec):
    """How to make an implementation with the claims of a manifest. Can be pickled, as every spec."""

    manifest_text: str
    manifest_source: str

    @classmethod
    def of(cls, spec: ImplementationSpec, file: str, origin: str, backends: tuple[str, ...]) -> DeclaredSpec:
        """Return the spec with the claims of a file. Raises FileError for a file that does not give any."""
        text = read_text(file, origin)
        manifest = parse_manifest(text, source=file)
        if backends != (manifest.device,):
            raise FileError(
                f"{file}: [device]: name must be the backend under test, {', '.join(backends)}, got "
                f"{manifest.device!r}; a manifest is about one device: pass --vdist-backend={manifest.device}"
            )
        return cls(spec.name, spec.target, spec.origin, text, file)

    @property
    def manifest(self) -> Manifest:
        return parse_manifest(self.manifest_text, source=self.manifest_source)

    def load(self) -> Implementation:
        return DeclaredImplementation(super().load(), self.manifest)


class DeclaredImplementation:
    """The implementation, with the claims of a manifest in place of its own."""

    def __init__(self, implementation: Implementation, manifest: Manifest) -> None:
        self.name = implementation.name
        self._implementation = implementation
        self._manifest = manifest

    def __getattr__(self, name: str) -> Any:
        """Return what only some implementations have: `coordinator_class`, `communicators`."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._implementation, name)

    def capabilities(self, device_type: str) -> Capabilities:
        own = self._implementation.capabilities(device_type)
        fields = {field.name: getattr(own, field.name) for field in dataclasses.fields(own)}
        return Capabilities(**self._manifest.overlay(fields))

    def init(self, settings: InitSettings) -> None:
        self._implementation.init(settings)

    def coordinator(self, group_ranks: list[list[int]], *, name: str, **options: Any) -> Coordinator:
        return self._implementation.coordinator(group_ranks, name=name, **options)

    def destroy(self) -> None:
        self._implementation.destroy()


def read_text(file: str, origin: str) -> str:
    """Return the text of a file that an option names. Raises FileError if it cannot be read."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot read {file}, got {file!r} from {origin}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from error
