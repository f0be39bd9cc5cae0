"""What the emulated platform knows and does, without any wire format."""
