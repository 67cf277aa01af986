"""The errors users meet: each names the thing, its value and what to do next."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_MAX_CHARACTERS = 1000
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029), " ")


def known_are(name: str, known: Iterable[str], more: Iterable[str] = ()) -> str:
    """What there is in place of an unknown name, and which of it, or of more, was probably meant."""
    names = list(known)
    meant = get_close_matches(name, [*names, *more], n=1)
    return f"known are {', '.join(names)}" + (f"; did you mean {meant[0]}?" if meant else "")


class AppcadenceError(ValueError):
    """Base of every error caused by input or settings; the command line prints it and exits with 2.

    A message may quote a file: it is one line of what can be printed, and loses its middle if it is long.

    Attributes:
        argument: name of the argument to give or to change, where that mends it; the command line adds its
            option.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        line = "".join(c if c.isprintable() else "?" for c in message.translate(_CONTROLS))
        if len(line) > _MAX_CHARACTERS:
            line = f"{line[: _MAX_CHARACTERS * 2 // 3]} ... {line[-_MAX_CHARACTERS // 4 :]}"
        super().__init__(line)
        self.argument = argument


class MissingExtraError(AppcadenceError, ImportError):
    """What was asked for takes an optional package that is not installed."""


class TelemetryError(AppcadenceError):
    """A telemetry directory or a native log cannot be read or written as asked."""


class UnusableFile(TelemetryError):
    """One input file cannot be used; those beside it can.

    `paths` holds it, and those that are of no use without it.
    """

    def __init__(self, message: str, *paths: Path, argument: str | None = None) -> None:
        super().__init__(message, argument)
        self.paths = paths


class SchemaError(AppcadenceError):
    """A table does not have the columns, types or values that its declaration asks for."""


class BundleError(AppcadenceError):
    """A model bundle is incomplete, altered, or of another version."""


class EvidenceError(AppcadenceError):
    """An evidence file was edited or cut, or cannot be read or added to."""
