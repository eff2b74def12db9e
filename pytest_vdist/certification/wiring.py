"""Where certification meets the session: what the plugin calls, in the order of the session."""

from __future__ import annotations

import pytest

from pytest_vdist.certificate.tables import FileError
from pytest_vdist.certificate.waivers import Waiver, parse_waivers
from pytest_vdist.certification.declared import read_text
from pytest_vdist.certification.waiving import Waiving
from pytest_vdist.options import Options

_WAIVING = pytest.StashKey[Waiving]()


def configure(config: pytest.Config, options: Options) -> None:
    """Register what waivers and --vdist-certify need. Raises pytest.UsageError for what cannot hold.

    Nothing is written yet. It must be called before pytest's own plugins are configured.
    """
    waivers, text = _waivers(options)
    if waivers:
        config.stash[_WAIVING] = Waiving(config, waivers)
        config.pluginmanager.register(config.stash[_WAIVING], "vdist-waivers")
    if options.certify is not None and not hasattr(config, "workerinput"):
        from pytest_vdist.certification import session  # noqa: PLC0415 - few sessions certify

        certification = session.Certification(config, options, waivers, text)
        certification.ask_for_junit_file()
        config.pluginmanager.register(certification, "vdist-certification")


def exit_code(config: pytest.Config, code: int) -> int:
    """Return the exit code of a session with waivers."""
    return config.stash[_WAIVING].exit_code(code) if _WAIVING in config.stash else code


def _waivers(options: Options) -> tuple[tuple[Waiver, ...], str]:
    """Return the waivers of the session, and the text of their file."""
    if options.waivers is None:
        return (), ""
    try:
        text = read_text(options.waivers, options.origin("waivers"))
        return parse_waivers(text, source=options.waivers), text
    except FileError as error:
        raise pytest.UsageError(str(error)) from None
