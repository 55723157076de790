from __future__ import annotations

from pathlib import Path

import pytest

from fleet_agent.engine.phases import MOVES, RESTING, UNTOUCHED, Phase, check_move, diagram
from fleet_agent.engine.steps import STEPS
from fleet_agent.errors import StateError

DOCS = Path(__file__).resolve().parents[3] / "docs" / "development" / "engine.md"


def test_diagram_in_the_docs_is_the_table() -> None:
    """`python -m fleet_agent.engine.phases` prints it."""
    assert f"```mermaid\n{diagram()}\n```" in DOCS.read_text()


def test_every_working_phase_has_a_step_and_rests_have_none() -> None:
    assert set(STEPS) == set(Phase) - RESTING


def test_every_phase_can_be_reached_and_left() -> None:
    reachable = {Phase.STEADY}
    while True:
        further = reachable | {to for was in reachable for to in MOVES[was]}
        if further == reachable:
            break
        reachable = further
    assert reachable == set(Phase)
    assert all(MOVES[phase] for phase in Phase)


def test_no_way_to_a_commit_but_through_probation() -> None:
    assert {was for was in Phase if Phase.COMMITTING in MOVES[was]} == {Phase.PROBATION}


def test_nothing_starts_before_it_was_validated_and_its_images_are_here() -> None:
    """The direct way to the swap is only for what ran here before."""
    assert {was for was in Phase if Phase.SWAPPING in MOVES[was]} == {Phase.PULLING, *RESTING}


@pytest.mark.parametrize("phase", sorted(UNTOUCHED))
def test_giving_up_before_the_swap_never_rolls_back(phase: Phase) -> None:
    assert Phase.ROLLING_BACK not in MOVES[phase]


def test_move_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(StateError) as refusal:
        check_move(Phase.FETCHING, Phase.COMMITTING)
    assert refusal.value.message == "Internal error: no move from fetching to committing."
