"""Ticks, and what is made of them."""
