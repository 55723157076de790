"""Types of the cast that conftest.py provides."""

from __future__ import annotations

import uuid
from typing import Any, Protocol


class MakeOperator(Protocol):
    """`make_operator("ada@fleet.example", "admin")` → that person's access token; rank None: no operator."""

    def __call__(self, email: str, rank: str | None) -> str: ...


class DeviceJwt(Protocol):
    """`device_jwt(device_id)` → the token that `device-token` would mint for it."""

    def __call__(self, device_id: str | uuid.UUID, *, expires_in_s: int = 3600, **claims: Any) -> str: ...
