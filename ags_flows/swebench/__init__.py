"""SWE-bench in sandboxes: read predictions and data sets, evaluate patches, and grade with the official package."""
