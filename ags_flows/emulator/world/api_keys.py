"""The account's API keys, with which E2B clients sign in."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ags_flows.emulator.world.clock import iso
from ags_flows.emulator.world.refusal import Refusal

if TYPE_CHECKING:
    from ags_flows.emulator.world.world import World

Json = dict[str, Any]


@dataclass
class ApiKey:
    """One key."""

    key_id: str
    name: str
    secret: str
    created: float

    def shown(self) -> Json:
        """Return the key as ``APIKeyInfo`` of the Cloud API."""
        return {
            "Name": self.name,
            "KeyId": self.key_id,
            "Status": "API_KEY_STATUS_ACTIVE",
            "MaskedKey": f"{self.secret[:8]}****{self.secret[-4:]}",
            "CreatedAt": iso(self.created),
        }


class ApiKeys:
    """The keys of the account, the same in all regions."""

    def __init__(self, world: World) -> None:
        """Start with none; the emulator's own key is not listed."""
        self._world = world
        self._keys: dict[str, ApiKey] = {}

    def __iter__(self) -> Iterator[ApiKey]:
        """Iterate over the keys, oldest first."""
        return iter(self._keys.values())

    def create(self, name: str | None) -> ApiKey:
        """Make a key.

        Raises:
            Refusal: when the name is missing or too long, or there are too many keys.
        """
        if not name:
            raise Refusal("MissingParameter", "The request is missing a required parameter `Name`.")
        if len(name) > 128:
            raise Refusal("InvalidParameterValue", "Name must have at most 128 characters.")
        self._world.limits.check("api_keys", len(self._keys), "LimitExceeded.APIKeyQuota")
        key = ApiKey("ark-" + secrets.token_hex(4), name, "ark_" + secrets.token_hex(24), self._world.clock.now())
        self._keys[key.key_id] = key
        self._world.store.put("api_keys", key.key_id, asdict(key))
        return key

    def delete(self, key_id: str | None) -> None:
        """Delete a key.

        Raises:
            Refusal: ``ResourceNotFound`` when there is none.
        """
        if not key_id:
            raise Refusal("MissingParameter", "The request is missing a required parameter `KeyId`.")
        if self._keys.pop(key_id, None) is None:
            raise Refusal("ResourceNotFound", f"API key {key_id} does not exist.")
        self._world.store.drop("api_keys", key_id)

    def accepts(self, secret: str) -> bool:
        """Return True if a request with this key is the account's.

        Clients that insist on E2B's own form may write ``e2b_`` in place of ``ark_``.
        """
        given = secret.encode()
        forms = [self._world.settings.api_key]
        for key in self._keys.values():
            forms += [key.secret, "e2b_" + key.secret[len("ark_") :]]
        return any(secrets.compare_digest(given, form.encode()) for form in forms)

    def load(self, document: Json) -> None:
        """Take a key from the state directory."""
        key = ApiKey(**document)
        self._keys[key.key_id] = key
