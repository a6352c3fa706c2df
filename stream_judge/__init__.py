"""Decides for every product update whether its pictures match its text."""

__version__ = "0.1.0"
