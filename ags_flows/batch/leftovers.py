"""Remove what finished items leave in a sandbox: their journals and their inboxes would fill its disk."""

from __future__ import annotations

import shlex

from ags_flows.batch.items import Item
from ags_flows.batch.pool import PooledSandbox
from ags_flows.batch.work import inbox_of
from ags_flows.durable.changes import KIND as CHANGES
from ags_flows.durable.claim_scripts import ROOT
from ags_flows.durable.claims import CALL_TIMEOUT
from ags_flows.durable.scripts import JOURNALS
from ags_flows.errors import AGSFlowsError
from ags_flows.ownership import Place, digest

EVERY = 20
"""The number of items after which there is one request for all of them."""


def sweep(sandbox: PooledSandbox, item: Item, place: Place, user: str | None) -> None:
    """Note that an item is recorded as finished, and remove from time to time what such items left.

    Args:
        sandbox: Where the item was done.
        item: The item.
        place: The place of its steps: it names their journals.
        user: Whose journals they are.
    """
    where = digest(*place.path)
    sandbox.unswept.append((where, inbox_of(item)))
    if len(sandbox.unswept) < EVERY:
        return
    journals = " ".join(f'"$ags_root"/{JOURNALS}/*{place}.* {shlex.quote(inbox)}' for place, inbox in sandbox.unswept)
    changes = " ".join(f'"$ags_root"/{CHANGES}/*{place}.*' for place, _ in sandbox.unswept)
    sandbox.unswept.clear()
    plane = sandbox.leased.plane.plane
    try:
        plane.script(f"{ROOT}\nrm -rf -- {journals}", user=user, timeout=CALL_TIMEOUT)
        # Changes are always recorded by the default user.
        plane.script(f"{ROOT}\nrm -rf -- {changes}", timeout=CALL_TIMEOUT)
    except AGSFlowsError:
        # They stay: a sandbox that does not respond is found by the next item.
        return
