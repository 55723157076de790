import { Checkbox, NativeSelect, Text } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { fields, number, text } from "../data/json.ts";
import { readGoingBack, readHaltTargets } from "../data/reads.ts";
import type { HaltScope } from "../data/rows.ts";
import { useLive } from "../fleet/useLive.ts";
import { counted } from "../format/size.ts";
import { openHalt } from "./actions.ts";
import { stopLabel } from "./halts.ts";
import { useHaltReach } from "./useHaltReach.ts";

const SCOPES: { value: Exclude<HaltScope, "fleet">; label: string }[] = [
  { value: "release", label: "A release" },
  { value: "rollout", label: "A rollout" },
  { value: "segment", label: "A segment" },
  { value: "role", label: "A role" },
  { value: "branch", label: "A branch" },
];

export default function HaltPartDialog({ close }: { close: () => void }) {
  const client = useClient();
  const cache = useQueryClient();
  const [scope, setScope] = useState<Exclude<HaltScope, "fleet">>("release");
  const [chosen, setChosen] = useState("");
  const [back, setBack] = useState(false);
  const [atOnce, setAtOnce] = useState(false);
  const targets = useLive({
    key: ["halt targets", scope],
    tables: ["releases", "rollouts"],
    read: (it) => readHaltTargets(it, scope),
  });
  const target = targets.data?.find(({ id }) => id === chosen) ?? targets.data?.[0];
  const reach = useHaltReach(scope, target?.id ?? null).data;
  const canGoBack = scope === "release" || scope === "rollout";
  const goingBack = useLive({
    key: ["going back", target?.release],
    tables: ["releases", "rollouts", "device_status"],
    read: (it) => readGoingBack(it, target?.release ?? ""),
    enabled: canGoBack && target?.release !== undefined,
  }).data;
  const takesBack = canGoBack && back;
  const running = number(fields(goingBack).devices) ?? 0;
  return (
    <ConfirmWithReason
      title="Halt a part of the fleet?"
      action={takesBack
        ? `Take ${counted(running, "device")} back`
        : reach
        ? stopLabel(reach)
        : "Stop its updates"}
      dangerous
      reasonLabel="Reason"
      run={async (reason) => {
        if (!target) return;
        await openHalt(client, {
          scope,
          target: target.id,
          reason,
          roll_back: takesBack,
          all_at_once: takesBack && atOnce,
        });
        await cache.invalidateQueries();
      }}
      close={close}
    >
      <NativeSelect
        label="What"
        data-autofocus
        value={scope}
        data={SCOPES}
        onChange={(event) => {
          setScope(event.currentTarget.value as typeof scope);
          setChosen("");
        }}
      />
      <NativeSelect
        label="Which"
        value={target?.id ?? ""}
        data={(targets.data ?? []).map(({ id, name }) => ({ value: id, label: name }))}
        onChange={(event) => setChosen(event.currentTarget.value)}
      />
      {targets.data?.length === 0 && <Text size="sm">There is none that could be halted.</Text>}
      <Text size="sm">
        {reach &&
          `${counted(reach.devices, "active device")} ${reach.devices === 1 ? "gets" : "get"} no updates`}
        {reach && (scope === "release" || scope === "rollout") && " from it"}
        {reach?.bySegment && ` (${reach.bySegment})`}
        {reach && "."} Running software is not touched{canGoBack && ", unless you take devices back"}.
      </Text>
      {canGoBack && (
        <Checkbox
          label={`Take devices back: ${counted(running, "active device")} that ${
            running === 1 ? "runs" : "run"
          } it ${running === 1 ? "returns" : "return"} to what ${running === 1 ? "it" : "they"} had before`}
          checked={back}
          onChange={(event) => setBack(event.currentTarget.checked)}
        />
      )}
      {takesBack && (
        <>
          <Checkbox
            label="All at once, past every limit of slots"
            checked={atOnce}
            onChange={(event) => setAtOnce(event.currentTarget.checked)}
          />
          <Text size="sm">
            {atOnce
              ? `All ${
                counted(running, "device")
              } go back at the same time. Choose this if waiting does more harm.`
              : text(fields(goingBack).summary)}
          </Text>
        </>
      )}
    </ConfirmWithReason>
  );
}
