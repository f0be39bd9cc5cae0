"""What peers get wrong, testable without Prefect: durable commands, leases, transfers."""
