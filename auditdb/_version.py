"""The version of the package; what `audit.version()` says is held equal by a test."""

__version__ = "0.2.0"
