"""`ags-flows verify`: named checks of what an account really does, and a profile of it.

The same checks run against a real account and against the emulator. `runner.verify` gives their results one by one;
`profile` keeps what was seen, without ids and secrets, and `ags-flows emulator --profile` behaves like that.
"""
