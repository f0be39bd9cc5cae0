"""Commands and code cells that run exactly once in a sandbox."""
