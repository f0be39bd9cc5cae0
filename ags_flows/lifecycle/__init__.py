"""Tools and instances: create, find, wait for, keep alive and end them."""
