import { EDITABLE } from "../forms/editable.ts";
import { equal } from "../testing/assert.ts";
import { bounds, isDefault, SETTINGS, typed } from "./settings.ts";

const named = (name: string) => {
  const found = SETTINGS.find((setting) => setting.name === name);
  if (!found) throw new Error(name);
  return found;
};

Deno.test("each setting of the table can be edited, and no other column", () => {
  equal([...EDITABLE.fleet_settings.columns], SETTINGS.map(({ name }) => name));
});

Deno.test("a setting says its default and its limits", () => {
  equal(bounds(named("default_poll_interval_s")), "Default: 900. Allowed: 30 to 604800 seconds.");
  equal(bounds(named("max_in_flight")), "Default: empty. Allowed: 1 or more, or empty.");
  equal([isDefault(named("max_in_flight"), null), isDefault(named("default_poll_interval_s"), 901)], [
    true,
    false,
  ]);
});

Deno.test("what is typed is a number, a text, or nothing", () => {
  equal(typed(named("max_in_flight"), " 12 "), 12);
  equal(typed(named("max_in_flight"), ""), null);
  equal(typed(named("max_in_flight"), "many"), "many");
  equal(typed(named("pending_role"), "12"), "12");
});
