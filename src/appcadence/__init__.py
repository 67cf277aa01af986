"""appcadence: iOS apps whose network rhythm neither the user nor the declared purpose explains."""

from importlib.metadata import version as _version

__version__ = _version("appcadence")
