"""Many items through a pool of sandboxes: what `run_batch` and `run_items` are made of."""
