"""What it takes to work inside a Prefect run: holder, logs, events, artifacts, outcome, secrets, task options."""
