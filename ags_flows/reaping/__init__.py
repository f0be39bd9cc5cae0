"""Find and delete orphaned sandboxes, tools and snapshots that this package created."""
