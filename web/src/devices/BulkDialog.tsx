/** The question before a change of many devices: what it does, to how many, to which. */
import { NativeSelect, Text, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { changeDevices, readNames } from "../data/reads.ts";
import { useReleases } from "../fleet/useFleet.ts";
import { useLive } from "../fleet/useLive.ts";
import { type Selector, selectorText } from "../format/selector.ts";
import { BULK_ACTIONS, bulkLabel, type BulkResult, type Change, parseResult } from "./bulk.ts";
import type { Selection } from "./picking.ts";

interface Props {
  action: string;
  selection: Selection;
  selector: Selector;
  done: (result: BulkResult) => void;
  close: () => void;
}

const NAMES_SHOWN = 12;
const HOURS = [
  { value: "1", label: "1 hour" },
  { value: "2", label: "2 hours" },
  { value: "8", label: "8 hours" },
  { value: "12", label: "12 hours" },
  { value: "24", label: "1 day" },
  { value: "168", label: "1 week" },
];
const COMMANDS = [
  { value: "update_now", label: "Update now" },
  { value: "restart", label: "Restart the containers" },
  { value: "check_drift", label: "Check for drift" },
  { value: "rollback", label: "Roll back" },
  { value: "enter_safe_mode", label: "Enter safe mode" },
  { value: "leave_safe_mode", label: "Leave safe mode" },
];

export default function BulkDialog({ action, selection, selector, done, close }: Props) {
  const client = useClient();
  const cache = useQueryClient();
  const [value, setValue] = useState("");
  const [label, setLabel] = useState("");
  const [hours, setHours] = useState(action === "ignore window" ? "2" : "");
  const segments = useLive({
    key: ["names", "segments"],
    tables: ["segments"],
    read: (it) => readNames(it, "segments"),
    enabled: action === "segment",
  });
  const windows = useLive({
    key: ["names", "maintenance_windows"],
    tables: ["maintenance_windows"],
    read: (it) => readNames(it, "maintenance_windows"),
    enabled: action === "window",
  });
  const releases = (useReleases().data ?? []).filter(({ state }) => state === "available");
  const { label: title = "Change", dangerous, needsReason } = BULK_ACTIONS.find(({ id }) => id === action) ??
    {};
  const count = selection.kind === "all" ? selection.count : selection.names.size;
  const segment = value || segments.data?.[0] || "";
  const release = value || releases[0]?.id || "";
  const command = value || COMMANDS[0]?.value || "";
  const until = () => new Date(Date.now() + Number(hours) * 3_600_000).toISOString();

  function change(): Change {
    switch (action) {
      case "segment":
        return { segment };
      case "labels":
        return { labels: { [label.trim()]: value === "" ? null : value } };
      case "window":
        return { maintenance_window: value || null };
      case "ignore window":
        return { ignore_window_until: until() };
      case "hold":
        return { hold: true, hold_until: hours ? until() : null };
      case "end hold":
        return { hold: false };
      case "pin":
        return { pinned_release: release };
      case "unpin":
        return { pinned_release: null };
      case "command":
        return { command: { kind: command } };
      case "suspend":
        return { state: "suspended" };
      default:
        return { state: "active" };
    }
  }

  return (
    <ConfirmWithReason
      title={`${title}?`}
      action={bulkLabel("Change", count)}
      dangerous={dangerous}
      reasonLabel={needsReason ? "Reason" : undefined}
      run={async (reason) => {
        const ids = selection.kind === "rows" ? [...selection.names.keys()] : null;
        done(parseResult(await changeDevices(client, selector, change(), count, reason || null, ids)));
        await cache.invalidateQueries();
      }}
      close={close}
    >
      <Text size="sm">
        {selection.kind === "all"
          ? `This is about all ${count.toLocaleString("en")} devices that match${
            selectorText(selector) ? `: ${selectorText(selector)}` : ""
          }.`
          : `This is about ${names(selection.names)}.`}{" "}
        It is refused as a whole if that is not the number any more.
      </Text>
      {action === "segment" && (
        <NativeSelect
          label="Segment"
          data-autofocus
          value={segment}
          data={segments.data ?? []}
          onChange={(event) => setValue(event.currentTarget.value)}
        />
      )}
      {action === "labels" && (
        <>
          <TextInput
            label="Label"
            data-autofocus
            required
            value={label}
            placeholder="site"
            onChange={(event) => setLabel(event.currentTarget.value)}
          />
          <TextInput
            label="Value"
            description="Leave it empty to remove the label."
            value={value}
            onChange={(event) => setValue(event.currentTarget.value)}
          />
        </>
      )}
      {action === "window" && (
        <NativeSelect
          label="Maintenance window"
          data-autofocus
          value={value}
          data={[{ value: "", label: "That of the segment" }, ...(windows.data ?? [])]}
          onChange={(event) => setValue(event.currentTarget.value)}
        />
      )}
      {(action === "hold" || action === "ignore window") && (
        <NativeSelect
          label="For how long"
          value={hours}
          data={action === "hold" ? [{ value: "", label: "Until somebody ends it" }, ...HOURS] : HOURS}
          onChange={(event) => setHours(event.currentTarget.value)}
        />
      )}
      {action === "pin" && (
        <NativeSelect
          label="Release"
          data-autofocus
          value={release}
          data={releases.map((it) => ({ value: it.id, label: `${it.version} (${it.branch})` }))}
          onChange={(event) => setValue(event.currentTarget.value)}
        />
      )}
      {action === "command" && (
        <NativeSelect
          label="Command"
          data-autofocus
          value={command}
          data={COMMANDS}
          onChange={(event) => setValue(event.currentTarget.value)}
        />
      )}
    </ConfirmWithReason>
  );
}

/** "a, b, c and 4 more". */
function names(chosen: ReadonlyMap<string, string>): string {
  const all = [...chosen.values()];
  const rest = all.length - NAMES_SHOWN;
  return rest > 0
    ? `${all.slice(0, NAMES_SHOWN).join(", ")} and ${rest.toLocaleString("en")} more`
    : all.join(", ");
}
