"""Optional packages: what takes one asks for it first, so that nothing fails half-way."""

from importlib.util import find_spec

from appcadence.errors import MissingExtraError


def require(extra: str, *packages: str) -> None:
    """Raises MissingExtraError, which says what to install, unless these packages of an extra are there."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{' and '.join(missing)} not found; install appcadence with its extra {extra!r}: "
            f"python -m pip install 'appcadence[{extra}]', or -e '.[{extra}]' in a checkout"
        )
