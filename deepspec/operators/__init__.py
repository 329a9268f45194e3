"""Symmetric operators: what they are, how they combine, and those of a classifier."""
