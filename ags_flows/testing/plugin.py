"""Pytest fixtures that ship with the package."""
