"""The errors that users see: each names the thing, its value and what to do next."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_MAX_CHARACTERS = 1000
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029), " ")


def known_are(name: str, known: Iterable[str], more: Iterable[str] = ()) -> str:
    """A text that lists the known names, and the one among them or `more` that was probably meant."""
    names = list(known)
    meant = get_close_matches(name, [*names, *more], n=1)
    return f"known are {', '.join(names)}" + (f"; did you mean {meant[0]}?" if meant else "")


class AppcadenceError(ValueError):
    """Base of every error caused by input or settings; the command line prints it and exits with 2.

    A message may quote a file, so it is reduced to one printable line, and shortened in the middle if long.

    Attributes:
        argument: name of the argument to give or change, if that helps; the command line adds its option.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        line = "".join(c if c.isprintable() else "?" for c in message.translate(_CONTROLS))
        if len(line) > _MAX_CHARACTERS:
            line = f"{line[: _MAX_CHARACTERS * 2 // 3]} ... {line[-_MAX_CHARACTERS // 4 :]}"
        super().__init__(line)
        self.argument = argument


class MissingExtraError(AppcadenceError, ImportError):
    """A feature needs an optional package that is not installed."""


class TelemetryError(AppcadenceError):
    """A telemetry directory or a native log cannot be read or written as requested."""


class UnusableFile(TelemetryError):
    """One input file cannot be used; others can.

    `paths` has the file and those that are useless without it.
    """

    def __init__(self, message: str, *paths: Path, argument: str | None = None) -> None:
        super().__init__(message, argument)
        self.paths = paths


class SchemaError(AppcadenceError):
    """A table does not have the columns, types or values that its declaration requires."""


class BundleError(AppcadenceError):
    """A model bundle is incomplete, altered, or of another version."""


class EvidenceError(AppcadenceError):
    """An evidence file was edited or cut, or cannot be read or extended."""
