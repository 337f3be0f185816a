"""The version of the package. A test checks that `audit.version()` returns the same."""

__version__ = "0.2.0"
