"""Retryable tasks."""
