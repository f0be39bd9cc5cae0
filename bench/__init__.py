"""The figures that this project promises, measured side by side in one run."""
