"""The errors users meet: each names the thing, its value and what to do next."""


class AppcadenceError(ValueError):
    """Base of every error caused by input or settings; the command line prints it and exits with 2."""


class TelemetryError(AppcadenceError):
    """A telemetry directory or a native log cannot be read or written as asked."""


class SchemaError(AppcadenceError):
    """A table does not have the columns, types or values that its declaration asks for."""


class BundleError(AppcadenceError):
    """A model bundle is incomplete, altered, or of another version."""
