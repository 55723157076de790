"""The engine as a process, so that it can be killed and its memory is given back.

Standard input: one JSON request, `{"verb": …, "config": …, "directive": …, "reason": …, "asked": …}`; for
`converge` further lines `{"directive": …}` may follow, and supersede it. Standard output: one `Progress` a
line, last `{"done": EngineStatus}` or `{"error": {kind, message, hint, retryable}}`. Log: standard error.

Exit code 0: ran to an end, whatever came of the update. 75: somebody else holds the lock. 1: the engine could
not come to rest; its journal lets the next start go on.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any, NoReturn

from loguru import logger
from pydantic import ValidationError as PydanticValidationError

from fleet_agent import log
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import CorrectedClock, Seams
from fleet_agent.errors import EXIT_LOCKED, FleetError, Kind
from fleet_agent.model import Directive, EngineStatus, Frozen, Progress
from fleet_agent.support import death_signal
from fleet_agent.support.clock import Clock, Heard


class Request(Frozen):
    """Without a verb: converge where there is a directive, else recover."""

    verb: str | None = None
    config: EngineConfig
    directive: Directive | None = None
    reason: str = ""
    asked: bool = False
    #: The control plane's time as the daemon heard it.
    heard: Heard | None = None
    #: The process that waits for the answer; work for one that is gone is for the next start.
    parent: int | None = None


#: Seconds to end in after SIGTERM; then the kernel ends us. Less than the daemon's patience.
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
                logger.warning("an unreadable directive is ignored: {error}", error=error)
        return self._newest


def _read_request() -> tuple[Request, bytes]:
    """The request, and what came after its line already. Unbuffered: what comes later is `Newest`'s."""
    raw = b""
    while piece := os.read(0, 1 << 20):
        raw += piece
        line, newline, rest = raw.partition(b"\n")
        try:
            if newline:
                return Request.model_validate(json.loads(line)), rest
        except json.JSONDecodeError:
            # Spread over lines: then it is all there is.
            continue
    return Request.model_validate(json.loads(raw)), b""


def _say(line: dict[str, Any] | Progress) -> None:
    text = line.model_dump_json() if isinstance(line, Progress) else json.dumps(line)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Nobody listens any more: the work itself goes on.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115, PTH123


def _carry_out(request: Request, rest: bytes) -> EngineStatus:  # noqa: PLR0911  one line a verb
    config = request.config
    clock = Clock(config.paths.clock_floor)
    clock.carry_on(request.heard)
    seams = Seams(newest=Newest(rest), clock=CorrectedClock(clock.now))
    match request.verb or ("converge" if request.directive else "recover"):
        case "converge" if request.directive is not None:
            return api.converge(config, request.directive, _say, asked=request.asked, seams=seams)
        case "recover":
            return api.recover(config, _say, seams=seams)
        case "rollback":
            return api.rollback(config, _say, reason=request.reason, seams=seams)
        case "restart":
            return api.restart(config, _say, seams=seams)
        case "enter_safe_mode":
            return api.enter_safe_mode(config, _say, reason=request.reason, seams=seams)
        case "leave_safe_mode":
            return api.leave_safe_mode(config, _say, seams=seams)
        case "status":
            return api.status(config, containers=True)
        case other:
            raise FleetError(Kind.INTERNAL, f"The engine was asked to {other} and does not know how.")


def _stop(signum: int, _frame: object) -> NoReturn:
    # Through the stack, so that a running Compose is killed with us; the journal lets the next start go on.
    signal.alarm(END_WITHIN_S)
    sys.exit(128 + signum)


def main() -> int:
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # A daemon that was killed cannot watch over us any more, and its successor cannot see that we hang.
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
        _say({"error": _problem(FleetError(Kind.CONFIG_INVALID, f"The engine's request is wrong: {where}."))})
        return 2
    except ValueError:
        _say({"error": _problem(FleetError(Kind.CONFIG_INVALID, "The engine's request is no JSON."))})
        return 2
    except FleetError as error:
        logger.error("{kind}: {error}", kind=error.kind.value, error=error)
        _say({"error": _problem(error)})
        return EXIT_LOCKED if error.kind is Kind.LOCKED else 1
    _say({"done": done.model_dump(mode="json")})
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
