"""Nets, data and training that come with the library."""
