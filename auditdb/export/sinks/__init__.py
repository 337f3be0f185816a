"""Sinks: where batches of events go, each a class with an asynchronous `put`."""
