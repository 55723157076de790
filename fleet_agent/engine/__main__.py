"""The engine as a process, so that it can be killed and its memory is given back.

Standard input: one JSON request, a `Request`. For `converge` further lines `{"directive": …}` may follow, and
supersede it. Standard output: one `Progress` a line, last `{"done": …}` or
`{"error": {kind, message, hint, retryable}}`. Log: standard error.

`done` holds an EngineStatus, or what `logs` or `drift` found: `{"lines": [{service, text, at}]}`,
`{"changed": […]}`. These two and `status` only look, and need no lock.

Exit code 0: ran to an end, however the update went. 75: another process holds the lock. 1: the engine could
not come to rest; the next start goes on from its journal.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from loguru import logger
from pydantic import Field
from pydantic import ValidationError as PydanticValidationError

from fleet_agent import log
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import CorrectedClock, Dependencies
from fleet_agent.errors import EXIT_LOCKED, FleetError, Kind, config_invalid, internal
from fleet_agent.model import Directive, EngineStatus, Frozen, Progress
from fleet_agent.support import death_signal
from fleet_agent.support.clock import Clock, Heard

if TYPE_CHECKING:
    from fleet_agent.containers.base import LogLine


class Request(Frozen):
    """Without a verb: converge if there is a directive, else recover."""

    verb: str | None = None
    config: EngineConfig
    directive: Directive | None = None
    reason: str = ""
    operator_requested: bool = False
    #: For `logs`: at most this many of each container.
    lines: int = Field(default=50, ge=1)
    #: The control plane's time as the daemon heard it.
    heard: Heard | None = None
    #: The process that waits for the answer; if it is gone, the work is left to the next start.
    parent: int | None = None


#: Seconds to end in after SIGTERM; then the kernel ends us. Less than the daemon waits.
END_WITHIN_S = 10


class Newest:
    """Directives that arrive on standard input while the engine works; never waits for one."""

    def __init__(self, buffer: bytes) -> None:
        self._buffer, self._open = buffer, True
        self._newest: Directive | None = None

    def __call__(self) -> Directive | None:
        while self._open and select.select([0], [], [], 0)[0]:
            piece = os.read(0, 65536)
            self._open = bool(piece)
            self._buffer += piece
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            try:
                self._newest = Directive.model_validate(json.loads(line)["directive"])
            except (ValueError, KeyError, TypeError) as error:
                logger.warning("ignoring an unreadable directive: {error}", error=error)
        return self._newest


def _read_request() -> tuple[Request, bytes]:
    """The request, and what has come after its line. Unbuffered: what comes later is for `Newest`."""
    raw = b""
    while piece := os.read(0, 1 << 20):
        raw += piece
        line, newline, rest = raw.partition(b"\n")
        try:
            if newline:
                return Request.model_validate(json.loads(line)), rest
        except json.JSONDecodeError:
            # Spread over lines: then it is all of the input.
            continue
    return Request.model_validate(json.loads(raw)), b""


def _print(line: dict[str, Any] | Progress) -> None:
    text = line.model_dump_json() if isinstance(line, Progress) else json.dumps(line)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Nobody is listening any more: the work itself goes on.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115, PTH123


def _carry_out(request: Request, rest: bytes) -> dict[str, Any]:
    match request.verb:
        case "logs":
            return {"lines": [_as_json(line) for line in api.logs(request.config, lines=request.lines)]}
        case "drift":
            return {"changed": api.drift(request.config)}
        case "status":
            return api.status(request.config, containers=True).model_dump(mode="json")
        case _:
            return _change(request, rest).model_dump(mode="json")


def _change(request: Request, rest: bytes) -> EngineStatus:
    config = request.config
    clock = Clock(config.paths.clock_floor)
    clock.carry_on(request.heard)
    dependencies = Dependencies(newest=Newest(rest), clock=CorrectedClock(clock.now))
    match request.verb or ("converge" if request.directive else "recover"):
        case "converge" if request.directive is not None:
            return api.converge(
                config,
                request.directive,
                _print,
                operator_requested=request.operator_requested,
                dependencies=dependencies,
            )
        case "recover":
            return api.recover(config, _print, dependencies=dependencies)
        case "rollback":
            return api.rollback(config, _print, reason=request.reason, dependencies=dependencies)
        case "restart":
            return api.restart(config, _print, dependencies=dependencies)
        case "enter_safe_mode":
            return api.enter_safe_mode(config, _print, reason=request.reason, dependencies=dependencies)
        case "leave_safe_mode":
            return api.leave_safe_mode(config, _print, dependencies=dependencies)
        case other:
            raise internal(f"the engine does not support the verb {other}")


def _as_json(line: LogLine) -> dict[str, Any]:
    return {"service": line.service, "text": line.text, "at": line.at.isoformat() if line.at else None}


def _stop(signum: int, _frame: object) -> NoReturn:
    # Through the stack, so that a running Compose is killed with us; the next start goes on from the journal.
    signal.alarm(END_WITHIN_S)
    sys.exit(128 + signum)


def main() -> int:
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # A daemon that was killed cannot watch us any more, and its successor cannot see that we hang.
    parent = os.getppid()
    death_signal.die_with_parent(parent, signal.SIGTERM)
    log.set_up("INFO")
    try:
        request, rest = _read_request()
        if request.parent not in (None, parent):
            return 128 + signal.SIGTERM
        done = _carry_out(request, rest)
    except PydanticValidationError as error:
        where = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)
        )
        _print({"error": _problem(config_invalid("The engine's request", where))})
        return 2
    except ValueError:
        _print({"error": _problem(config_invalid("The engine's request", "it is not JSON"))})
        return 2
    except FleetError as error:
        logger.error("{kind}: {error}", kind=error.kind.value, error=error)
        _print({"error": _problem(error)})
        return EXIT_LOCKED if error.kind is Kind.LOCKED else 1
    _print({"done": done})
    return 0


def _problem(error: FleetError) -> dict[str, Any]:
    return {
        "kind": error.kind.value,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
    }


if __name__ == "__main__":
    sys.exit(main())
