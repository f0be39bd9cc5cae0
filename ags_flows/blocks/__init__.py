"""Prefect blocks: credentials and configuration."""
