"""The demo: one real job on an emulator and a Prefect server of its own."""
