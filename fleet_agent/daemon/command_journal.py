"""Which orders of operators were begun here and what was answered, on disk: none is carried out twice.

An order is written down before it is begun, and its answer before it is sent. So whenever the daemon dies,
its successor knows an order that may be half or wholly done: it is answered as interrupted, not repeated.
Entries go once the control plane no longer offers their order, so the file is gone most of the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from loguru import logger
from pydantic import Field
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.errors import Kind, StateError
from fleet_agent.model import Command, Frozen
from fleet_agent.support import atomic_files as durable
from fleet_agent.support.clock import Clock


class Answer(Frozen):
    """`device_commands.state` and `.result`; a failure carries `kind`, `message` and `hint`."""

    state: Literal["succeeded", "failed"]
    result: dict[str, Any]


class _Entry(Frozen):
    begun_at: datetime
    answer: Answer | None = None


class _Book(Frozen):
    orders: dict[UUID, _Entry] = Field(default_factory=dict)


class OrderBook:
    def __init__(self, file: Path, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._orders, self._in_doubt = _read(file)

    def knows(self, order_id: UUID) -> bool:
        """Whether this order must not be begun: it was begun before, or that cannot be told."""
        return self._in_doubt or order_id in self._orders

    def answer(self, order_id: UUID) -> Answer:
        """What to answer to an order that `knows` is true of."""
        entry = self._orders.get(order_id)
        if entry is None:
            return _interrupted("What this device remembered of orders became unreadable")
        return entry.answer or _interrupted(
            f"The agent ended while it carried this out, begun at {entry.begun_at:%Y-%m-%d %H:%M:%S} UTC"
        )

    def begin(self, order: Command) -> None:
        """Note durably that `order` is begun. Raises StateError; then it must not be begun."""
        self._write({**self._orders, order.id: _Entry(begun_at=self._clock.now())})

    def note(self, order_id: UUID, answer: Answer) -> None:
        """Keep `answer` until it got through; on a full disk in memory only, which a warning says.

        An order that was never begun needs no memory.
        """
        if not self.knows(order_id):
            return
        entry = self._orders.get(order_id) or _Entry(begun_at=self._clock.now())
        orders = {**self._orders, order_id: entry.model_copy(update={"answer": answer})}
        if orders != self._orders:
            self._write_if_possible(orders)

    def keep_only(self, offered: Iterable[UUID]) -> None:
        """Forget the orders that the control plane no longer offers: it has their answers."""
        ids = set(offered)
        orders = {order_id: entry for order_id, entry in self._orders.items() if order_id in ids}
        if self._in_doubt or orders != self._orders:
            self._in_doubt = False
            self._write_if_possible(orders)

    def _write(self, orders: dict[UUID, _Entry]) -> None:
        if orders:
            durable.write_atomic(self._file, _Book(orders=orders).model_dump_json().encode())
        else:
            durable.remove(self._file)
        self._orders = orders

    def _write_if_possible(self, orders: dict[UUID, _Entry]) -> None:
        try:
            self._write(orders)
        except StateError as error:
            self._orders = orders
            logger.warning("what is known of orders is not on disk: {error}", error=error)


def _read(file: Path) -> tuple[dict[UUID, _Entry], bool]:
    """The entries, and whether there may have been others."""
    try:
        return _Book.model_validate_json(file.read_bytes()).orders, False
    except FileNotFoundError:
        return {}, False
    except (OSError, PydanticValidationError):
        logger.error("{file} is unreadable: orders offered now are not carried out", file=file)
        return {}, True


def _interrupted(what: str) -> Answer:
    return Answer(
        state="failed",
        result={
            "kind": Kind.INTERRUPTED.value,
            "message": f"{what}. It may be half or wholly done and is not repeated.",
            "hint": "Look at the device's state, and give the order again where it is still wanted.",
        },
    )
