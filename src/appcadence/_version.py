"""The version, which pyproject.toml alone states."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("appcadence")
except PackageNotFoundError:  # the sources alone, such as an archive that Spark hands to its workers
    VERSION = "0+unknown"
