"""Every flag, ini key and environment variable of the plugin in one table, and the values that hold."""

from pytest_vdist.options.parsers import ALL_COMPILE_MODES, EFFORTS
from pytest_vdist.options.reading import configure, read_options, refuse_unknown_variables, register, text_of
from pytest_vdist.options.row import DEFAULT, Row, in_environment
from pytest_vdist.options.table import REFERENCE_VARIABLES, TABLE
from pytest_vdist.options.values import GroupLimits, Options, options_of

__all__ = [
    "ALL_COMPILE_MODES",
    "DEFAULT",
    "EFFORTS",
    "REFERENCE_VARIABLES",
    "TABLE",
    "GroupLimits",
    "Options",
    "Row",
    "configure",
    "in_environment",
    "options_of",
    "read_options",
    "refuse_unknown_variables",
    "register",
    "text_of",
]
