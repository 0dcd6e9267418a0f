"""Errors that a person can act on.

Everything that is wrong with what a user gave (a file, a table, a config value, a checkpoint) is raised as one of
these, with a message of one line that names the thing and says what was expected.
"""

import difflib
from collections.abc import Collection, Iterable, Iterator


class BundleError(ValueError):
    """Input that a user can mend: the message names the file, column, row or config key, and what was expected."""


class UsageError(BundleError):
    """A command line or a config that names what nothing knows, or leaves out what is needed."""


class RadiographError(BundleError):
    """An image file that cannot be read as a radiograph: the message names the file and, for DICOM, the tag."""


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


def nearest(name: str, known: Iterable[str]) -> str:
    """The part of an error message that helps with a mistyped name.

    Args:
        name: what was asked for.
        known: the names that exist.

    Returns:
        ``" (did you mean 'x'?)"``, or nothing where no known name is near.
    """
    by_lower = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" (did you mean '{by_lower[found[0]]}'?)" if found else ""


def one_line(text: object, most: int | None = 200) -> str:
    """A text, or what an exception says, in one line.

    Args:
        text: with line breaks and runs of blanks.
        most: characters that are kept; None for all.
    """
    return " ".join(str(text).split())[:most]


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it came from, each once, the last one first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def cause_of(error: BaseException) -> BundleError | None:
    """The error of ours that another library has wrapped, None where there is none."""
    return next((cause for cause in causes(error) if isinstance(cause, BundleError)), None)
