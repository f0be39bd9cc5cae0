"""The lifecycle of tools and instances: create, find, wait, renew leases, pause, resume and delete."""
