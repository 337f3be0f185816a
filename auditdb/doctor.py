"""The doctor: what would let events be lost, forged or read by others."""

from auditdb.operate.doctor import Finding, diagnose, fix, render

__all__ = ["Finding", "diagnose", "fix", "render"]
