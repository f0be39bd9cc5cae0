"""SWE-bench in sandboxes: reading predictions and data sets, evaluating a patch, grading by the official package."""
