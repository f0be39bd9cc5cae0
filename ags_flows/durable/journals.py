"""Which commands a sandbox has journals of."""

from __future__ import annotations

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.durable.claim_scripts import ROOT
from ags_flows.durable.claims import CALL_TIMEOUT
from ags_flows.durable.scripts import JOURNALS


def list_journals(plane: DataPlane) -> list[str]:
    """Return the names of the journals in a sandbox, `<family>.<number>`, sorted.

    Raises:
        UnreachableError: The sandbox did not respond.
    """
    script = f'{ROOT}\nls -1 "$ags_root/{JOURNALS}" 2>/dev/null || :'
    return sorted(name for name in plane.script(script, timeout=CALL_TIMEOUT).stdout.split() if "." in name)
