"""E2B's REST API over the same instances as the Cloud API."""
