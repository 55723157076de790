"""What docs/usage/settings.md reads out of the migration is what the database has."""

from __future__ import annotations

from tests.support.identities import Fleet
from tests.support.settings_page import fleet_settings


def test_each_setting_is_read_as_the_catalog_has_it(fleet: Fleet) -> None:
    catalog = fleet.sql(
        """
        select a.attname::text, format_type(a.atttypid, null), pg_get_expr(d.adbin, d.adrelid),
          col_description(a.attrelid, a.attnum)
        from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = 'public.fleet_settings'::regclass and a.attnum > 0 and not a.attisdropped
          and a.attname not in ('id', 'updated_at') order by a.attnum
        """
    )
    read = [(setting.name, setting.type, setting.default, setting.meaning) for setting in fleet_settings()]
    assert read == [
        (name, kind, default and default.removesuffix("::text").strip("'"), meaning)
        for name, kind, default, meaning in catalog
    ]
