"""Collects the logs of many databases in one: publication at the sources, and the centre."""
