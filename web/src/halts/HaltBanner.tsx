import { Alert, Button, Text } from "@mantine/core";
import { useState } from "react";
import { mayOperate } from "../auth/rank.ts";
import { useOperator } from "../auth/session.tsx";
import { Icon } from "../components/Icon.tsx";
import { RelativeTime } from "../components/RelativeTime.tsx";
import type { HaltRow } from "../data/rows.ts";
import { useOpenHalts } from "../fleet/useFleet.ts";
import { soft } from "../styles/classNames.ts";
import classes from "./HaltBanner.module.css";
import { haltCause, haltEffect, haltTitle } from "./halts.ts";
import { LiftHalt } from "./LiftHalt.tsx";

/** Every open halt, on every page: what is stopped, why, since when, and a button to lift it. */
export function HaltBanner() {
  const { data: halts } = useOpenHalts();
  const [lifting, setLifting] = useState<HaltRow | null>(null);
  return (
    <div aria-live="polite" className={classes.halts}>
      {halts?.map((halt) => (halt.is_past
        ? (
          <PastHalt
            key={halt.id}
            halt={halt}
            lift={() => setLifting(halt)}
          />
        )
        : <OpenHalt key={halt.id} halt={halt} lift={() => setLifting(halt)} />)
      )}
      {lifting && <LiftHalt halt={lifting} close={() => setLifting(null)} />}
    </div>
  );
}

function OpenHalt({ halt, lift }: { halt: HaltRow; lift: () => void }) {
  return (
    <Alert
      color="red"
      variant="light"
      icon={<Icon name="stop" />}
      title={haltTitle(halt)}
      data-testid="halt"
      data-scope={halt.scope}
    >
      <div className={classes.row}>
        <Text size="sm" className={classes.words}>
          {halt.reason} ({haltCause(halt)} <RelativeTime at={halt.opened_at} />) · {haltEffect(halt)}
        </Text>
        <Lift lift={lift} />
      </div>
    </Alert>
  );
}

/** A halt that stops nothing any more: one quiet line, so that it can be lifted when somebody has time. */
function PastHalt({ halt, lift }: { halt: HaltRow; lift: () => void }) {
  return (
    <div className={classes.row} data-testid="past-halt" data-scope={halt.scope}>
      <Text size="sm" className={`${soft} ${classes.words}`}>
        {haltTitle(halt)}: {halt.reason} ({haltCause(halt)} <RelativeTime at={halt.opened_at} />).{" "}
        {haltEffect(halt)}
      </Text>
      <Lift lift={lift} />
    </div>
  );
}

function Lift({ lift }: { lift: () => void }) {
  const operator = useOperator();
  return mayOperate(operator.rank) && (
    <Button size="compact-sm" variant="default" onClick={lift}>
      Lift
    </Button>
  );
}
