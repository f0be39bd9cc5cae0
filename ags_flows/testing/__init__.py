"""For tests of flows: an emulator and a configuration for it."""
