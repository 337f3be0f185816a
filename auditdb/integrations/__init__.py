"""Frameworks: auditdb in the way in which the users of each expect it."""
