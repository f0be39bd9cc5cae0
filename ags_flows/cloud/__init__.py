"""AGS and its sandboxes as typed calls; the only importers of vendor SDKs."""
