"""Benchmarks: what capture costs the writer, and what reading costs as the log grows."""
