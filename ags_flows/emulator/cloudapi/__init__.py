"""The Cloud API of AGS, version 2025-09-20, as the ``tencentcloud`` SDK speaks it."""
