/** The columns of a device that people edit. */
import { NativeSelect, Textarea, TextInput } from "@mantine/core";
import { readNames } from "../data/reads.ts";
import type { Tables } from "../data/generated/database.types.ts";
import { useLive } from "../fleet/useLive.ts";
import { EditForm } from "../forms/EditForm.tsx";
import type { DraftHandle } from "../forms/useDraft.ts";
import { labelsFromText, labelsText } from "./labels.ts";

export type EditedDevice = {
  name: string;
  role: string;
  segment: string;
  branch: string;
  timezone: string;
  maintenance_window: string | null;
  poll_interval_s: number | null;
  labels: Record<string, string>;
};

/** The part of a row that the form is about. */
export function editedDevice(row: Tables<"devices">): EditedDevice {
  const { name, role, segment, branch, timezone, maintenance_window, poll_interval_s } = row;
  return {
    name,
    role,
    segment,
    branch,
    timezone,
    maintenance_window,
    poll_interval_s,
    labels: row.labels as Record<string, string>,
  };
}

export function EditDevice({ row, form }: { row: Tables<"devices">; form: DraftHandle<EditedDevice> }) {
  const roles = useNames("device_roles");
  const segments = useNames("segments");
  const branches = useNames("branches");
  const windows = useNames("maintenance_windows");
  const or = (names: string[], chosen: string) => [...new Set([...names, chosen])];
  return (
    <EditForm table="devices" id={row.id} form={form} now={editedDevice(row)} shown={shown}>
      {(mine, change) => (
        <>
          <TextInput
            label="Name"
            value={mine.name}
            required
            onChange={(event) => change({ name: event.currentTarget.value })}
          />
          <NativeSelect
            label="Role"
            value={mine.role}
            data={or(roles, mine.role)}
            onChange={(event) => change({ role: event.currentTarget.value })}
          />
          <NativeSelect
            label="Segment"
            value={mine.segment}
            data={or(segments, mine.segment)}
            onChange={(event) => change({ segment: event.currentTarget.value })}
          />
          <NativeSelect
            label="Branch"
            value={mine.branch}
            data={or(branches, mine.branch)}
            onChange={(event) => change({ branch: event.currentTarget.value })}
          />
          <NativeSelect
            label="Maintenance window"
            value={mine.maintenance_window ?? ""}
            data={[{ value: "", label: "That of its segment" }, ...windows]}
            onChange={(event) => change({ maintenance_window: event.currentTarget.value || null })}
          />
          <TextInput
            label="Time zone"
            value={mine.timezone}
            required
            onChange={(event) => change({ timezone: event.currentTarget.value })}
          />
          <TextInput
            label="Poll interval in seconds"
            description="Empty means that of the fleet."
            inputMode="numeric"
            pattern="[0-9]*"
            value={mine.poll_interval_s === null ? "" : String(mine.poll_interval_s)}
            onChange={(event) =>
              change({
                poll_interval_s: event.currentTarget.value === "" ? null : Number(event.currentTarget.value),
              })}
          />
          <Textarea
            label="Labels"
            description="One a line, as name=value."
            autosize
            minRows={2}
            defaultValue={labelsText(mine.labels)}
            onChange={(event) => change({ labels: labelsFromText(event.currentTarget.value) })}
          />
        </>
      )}
    </EditForm>
  );
}

function useNames(table: Parameters<typeof readNames>[1]): string[] {
  return useLive({ key: ["names", table], tables: [table], read: (client) => readNames(client, table) })
    .data ?? [];
}

function shown(field: string, value: unknown): string {
  if (field === "labels") {
    return labelsText(value as Record<string, string>).replaceAll("\n", ", ") || "no labels";
  }
  return value === null || value === "" ? "empty" : String(value);
}
