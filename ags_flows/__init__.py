"""Prefect tasks and flows for Tencent Cloud Agent Sandbox (AGS)."""
