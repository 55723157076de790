"""What the audit log recorded is taken back as a new edit, entry by entry or all of one action."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.identities import DEVICE, OPERATOR, OTHER, Fleet, become
from tests.support.profiles import OLDER_SERVER_IN_FULL

pytestmark = OLDER_SERVER_IN_FULL


def entries(fleet: Fleet, table: str) -> list[tuple[int, Any]]:
    """Id and action of the entries about a table, oldest first."""
    return fleet.sql("select id, action_id from public.audit_log where table_name = %s order by id", table)


def undo(fleet: Fleet, who: str = "operator", **arguments: Any) -> list[tuple[str, str]]:
    """Outcome and sentence of each entry, in the order of the log."""
    named = ", ".join(f"{name} => %s" for name in arguments)
    return fleet.sql(
        f"select outcome, coalesce(message, '') from public.undo_changes({named}) order by entry_id",
        *arguments.values(),
        who=who,
    )


def segments(fleet: Fleet) -> dict[str, str]:
    return dict(fleet.sql("select name, segment from public.devices"))


def test_one_action_is_taken_back_as_a_whole_and_only_where_the_rows_still_are_as_it_left_them(
    fleet: Fleet,
) -> None:
    before = segments(fleet)
    fleet.sql("update public.devices set segment = 'early' where state = 'active'", who="operator")
    ((_, action),) = {(0, action) for _, action in entries(fleet, "devices")}
    # A machine's touch of the row and an edit of another column are no conflict; a later segment is.
    fleet.sql("update public.devices set hold = true, hold_reason = 'x' where id = %s", DEVICE, who="admin")
    fleet.sql("update public.devices set segment = 'canary' where id = %s", OTHER, who="admin")
    assert sorted(undo(fleet, action=action)) == [
        ("moved_on", "It was changed again since, or is gone. Undo the later change first."),
        ("undone", ""),
    ]
    assert segments(fleet) == before | {"other": "canary"}
    assert fleet.sql("select hold from public.devices where id = %s", DEVICE) == [(True,)]
    last = fleet.sql("select actor_id, before, after from public.audit_log order by id desc limit 1")
    assert last == [(OPERATOR, {"segment": "early"}, {"segment": "canary"})]


def test_an_undo_is_undone_like_any_edit(fleet: Fleet) -> None:
    before = segments(fleet)
    fleet.sql("update public.devices set segment = 'early' where id = %s", DEVICE, who="operator")
    undo(fleet, entries=[entries(fleet, "devices")[-1][0]])
    assert segments(fleet) == before
    undo(fleet, entries=[entries(fleet, "devices")[-1][0]])
    assert segments(fleet)["device"] == "early"


def test_a_label_added_since_is_not_lost(fleet: Fleet) -> None:
    edit = "update public.devices set labels = %s where id = %s"
    fleet.sql(edit, '{"site": "rome"}', DEVICE, who="operator")
    fleet.sql(edit, '{"site": "rome", "floor": "2"}', DEVICE, who="admin")
    assert [outcome for outcome, _ in undo(fleet, entries=[entries(fleet, "devices")[0][0]])] == ["moved_on"]


def test_rows_made_and_deleted_in_one_action_come_back_and_go_in_the_right_order(fleet: Fleet) -> None:
    connection = fleet.api
    with connection.transaction():
        become(connection, "operator")
        connection.execute("insert into public.segments (name, description) values ('attic', 'x')")
        connection.execute("insert into public.rollout_templates (name) values ('slow')")
        connection.execute(
            "insert into public.rollout_template_stages (template, position, percent) values ('slow', 1, 50)"
        )
        connection.execute("update public.segments set description = 'y' where name = 'attic'")
    action = entries(fleet, "segments")[-1][1]
    assert {outcome for outcome, _ in undo(fleet, action=action)} == {"undone"}
    assert fleet.sql("select from public.segments where name = 'attic'") == []
    assert fleet.sql("select from public.rollout_templates where name = 'slow'") == []
    # And back: what was deleted is as it was.
    back = entries(fleet, "segments")[-1][1]
    assert {outcome for outcome, _ in undo(fleet, action=back)} == {"undone"}
    assert fleet.sql("select description from public.segments where name = 'attic'") == [("y",)]
    assert fleet.sql("select percent from public.rollout_template_stages where template = 'slow'") == [(50,)]


def test_what_cannot_be_taken_back_is_said_row_by_row(fleet: Fleet) -> None:
    fleet.sql("insert into public.halts (reason) values ('smoke')", who="operator")
    fleet.sql("update public.devices set state = 'retired' where id = %s", DEVICE, who="operator")
    for table, words in {"halts": "cannot be taken back", "devices": "is retired and cannot become"}.items():
        ((outcome, message),) = undo(fleet, entries=[entries(fleet, table)[-1][0]])
        assert outcome == "refused"
        assert words in message


@pytest.mark.parametrize(
    ("who", "arguments", "code", "kind"),
    [
        ("viewer", {"entries": [1]}, "PT403", "rank_too_low"),
        ("operator", {"entries": [0]}, "PT404", "change_unknown"),
        ("operator", {"entries": None}, "PT400", "argument_missing"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(
    fleet: Fleet, who: str, arguments: dict[str, Any], code: str, kind: str
) -> None:
    refusal = fleet.refused(
        "select public.undo_changes(entries => %s::bigint[])", arguments["entries"], who=who
    )
    assert (refusal.code, refusal.kind) == (code, kind)
