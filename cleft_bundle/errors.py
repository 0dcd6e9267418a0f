"""Errors that a person can act on.

Everything that is wrong with what a user gave (a file, a table, a config value, a checkpoint) is raised as one of
these, with a message of one line that names the thing and says what was expected.
"""

from collections.abc import Collection


class BundleError(ValueError):
    """Input that a user can mend: the message names the file, column, row or config key, and what was expected."""


class UsageError(BundleError):
    """A command line or a config that names what nothing knows, or leaves out what is needed."""


class RadiographError(BundleError):
    """An image file that cannot be read as a radiograph: the message names the file and, for DICOM, the tag."""


def bundle_error(error: BaseException | None) -> BundleError | None:
    """The :class:`BundleError` that an exception is, or was caused by: MONAI wraps them in errors of its own."""
    while error is not None and not isinstance(error, BundleError):
        error = error.__cause__ or error.__context__
    return error


def require_one_of(name: str, value: object, known: Collection[str]) -> None:
    """Refuse a value that is none of those known.

    Raises:
        BundleError: names the config key, the known values and the one given.
    """
    if value not in list(known):  # of a list, as a value that cannot be hashed may be asked for
        raise BundleError(f"{name}: expected one of {', '.join(known)}, got {value!r}")


def require_some_of(name: str, value: object, known: Collection[str]) -> tuple[str, ...]:
    """The names that an option lists, each one of those known.

    Args:
        name: the config key.
        value: one name, or several in a list; None, or an empty list, for none.
        known: what may be named.

    Raises:
        BundleError: names the config key, the known values and the one given.
    """
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple | set | frozenset):
        raise BundleError(f"{name}: expected a list of {', '.join(known)}, got {value!r}")
    for one in names:
        require_one_of(name, one, known)
    return tuple(names)
