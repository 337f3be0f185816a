"""Every attack on the log, each with a naive twin that falls; `make attacks` prints them."""
