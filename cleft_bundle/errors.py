"""Errors that a person can act on.

Everything that is wrong with what a user gave (a file, a table, a config value, a checkpoint) is raised as one of
these, with a message of one line that names the thing and says what was expected.
"""

from collections.abc import Collection


class BundleError(ValueError):
    """Input that a user can mend: the message names the file, column, row or config key, and what was expected."""


class RadiographError(BundleError):
    """An image file that cannot be read as a radiograph: the message names the file and, for DICOM, the tag."""


def require_one_of(name: str, value: object, known: Collection[str]) -> None:
    """Refuse a value that is none of those known.

    Raises:
        BundleError: names the config key, the known values and the one given.
    """
    if value not in known:
        raise BundleError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
