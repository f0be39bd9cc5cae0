"""Commands and code cells that run once in a sandbox."""
