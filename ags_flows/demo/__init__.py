"""The demo: one real job on a dedicated emulator and a dedicated Prefect server."""
