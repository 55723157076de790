/** The settings of the fleet, each with what it means; admins change them. */
import { Button, Text, TextInput } from "@mantine/core";
import type { ReactNode } from "react";
import { rankIs } from "../auth/rank.ts";
import { useOperator } from "../auth/session.tsx";
import { PageFrame } from "../components/PageFrame.tsx";
import type { Client } from "../data/client.ts";
import { dataOf } from "../data/reads.ts";
import { useLive } from "../fleet/useLive.ts";
import { EDITABLE } from "../forms/editable.ts";
import { EditForm } from "../forms/EditForm.tsx";
import { words } from "../forms/saveEdit.ts";
import { useDraft } from "../forms/useDraft.ts";
import { numbers, soft } from "../styles/classNames.ts";
import { bounds, isDefault, type Setting, SETTINGS, type SettingValues, typed } from "./settings.ts";
import classes from "./SettingsPage.module.css";

async function readAllSettings(client: Client): Promise<SettingValues> {
  return dataOf(
    await client.from("fleet_settings").select(EDITABLE.fleet_settings.columns.join(",")).limit(1).single(),
  ) as unknown as SettingValues;
}

export default function SettingsPage() {
  const operator = useOperator();
  const form = useDraft<SettingValues>("fleet_settings");
  const { data: now, error } = useLive({
    key: ["settings"],
    tables: ["fleet_settings"],
    read: readAllSettings,
  });
  const mayEdit = rankIs(operator.rank, "admin");
  return (
    <PageFrame
      title="Settings"
      intro={mayEdit
        ? "They apply to the whole fleet, from the moment they are saved. Every change is in the audit log."
        : "They apply to the whole fleet. Only an admin may change them."}
      loading={!now}
      error={error}
      actions={now && mayEdit && !form.draft && <Button onClick={() => form.begin(now)}>Edit</Button>}
    >
      {now && (form.draft && mayEdit
        ? (
          <EditForm table="fleet_settings" id="true" form={form} now={now}>
            {(mine, change) => (
              <List>
                {(setting) => (
                  <TextInput
                    aria-label={title(setting)}
                    value={String(mine[setting.name] ?? "")}
                    inputMode={setting.type === "integer" ? "numeric" : "text"}
                    placeholder="empty"
                    pattern={setting.type === "integer" ? " *-?[0-9]* *" : undefined}
                    title={setting.type === "integer" ? "A whole number" : undefined}
                    onChange={(event) =>
                      change({ [setting.name]: typed(setting, event.currentTarget.value) })}
                  />
                )}
              </List>
            )}
          </EditForm>
        )
        : (
          <List>
            {(setting) => (
              <Text className={numbers} fw={isDefault(setting, now[setting.name]) ? 400 : 700}>
                {now[setting.name] ?? "empty"}
              </Text>
            )}
          </List>
        ))}
    </PageFrame>
  );
}

function title({ name }: Setting): string {
  const text = words(name);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function List({ children }: { children: (setting: Setting) => ReactNode }) {
  return (
    <dl className={classes.settings}>
      {SETTINGS.map((setting) => (
        <div key={setting.name} className={classes.setting} data-setting={setting.name}>
          <dt>
            <Text fw={600}>{title(setting)}</Text>
            <Text size="sm">{setting.meaning}</Text>
            <Text size="xs" className={soft}>
              {bounds(setting)} As <code>{setting.name}</code> in fleetctl and SQL.
            </Text>
          </dt>
          <dd>{children(setting)}</dd>
        </div>
      ))}
    </dl>
  );
}
