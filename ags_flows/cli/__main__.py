"""`python -m ags_flows.cli`: the same as `ags-flows`."""

from ags_flows.cli import main

if __name__ == "__main__":
    main()
