"""Bytes, as people read them."""

from __future__ import annotations

MIB = 1024 * 1024
