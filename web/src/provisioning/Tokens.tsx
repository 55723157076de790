/** Provisioning tokens, for admins: made and shown once, listed with who came, revoked. */
import {
  Button,
  Checkbox,
  CopyButton,
  Group,
  NativeSelect,
  NumberInput,
  Stack,
  Text,
  TextInput,
  Title,
} from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useAddress, useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { ErrorAlert } from "../components/ErrorAlert.tsx";
import { EmptyState } from "../components/PageFrame.tsx";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { useNow } from "../components/useNow.ts";
import { useLive } from "../fleet/useLive.ts";
import { soft } from "../styles/classNames.ts";
import { createToken, readChoices, readTokens, revokeToken, type TokenWish } from "./actions.ts";
import classes from "./Provisioning.module.css";
import {
  enrollLine,
  type MadeToken,
  type TokenRow,
  tokenState,
  usesWords,
  VALIDITIES,
} from "./provisioning.ts";
import { QrCode } from "./QrCode.tsx";

export function Tokens() {
  const client = useClient();
  const cache = useQueryClient();
  const now = useNow(5000);
  const [making, setMaking] = useState(false);
  const [made, setMade] = useState<MadeToken | null>(null);
  const [revoking, setRevoking] = useState<TokenRow | null>(null);
  const { data: tokens, error } = useLive({
    key: ["tokens"],
    tables: ["provisioning_tokens", "devices"],
    read: readTokens,
  });

  return (
    <Stack component="section" aria-labelledby="tokens" gap="sm">
      <Group justify="space-between">
        <Title order={2} size="h4" id="tokens">Tokens</Title>
        {!making && <Button variant="default" onClick={() => setMaking(true)}>New token</Button>}
      </Group>
      {error && <ErrorAlert error={error} title="Could not load the tokens" />}
      {making && (
        <TokenForm
          close={() => setMaking(false)}
          done={(token) => {
            setMade(token);
            setMaking(false);
          }}
        />
      )}
      {made && <ShownOnce made={made} close={() => setMade(null)} />}
      {tokens?.length === 0 && !making && !made && (
        <EmptyState title="No tokens yet">
          With a token, a machine joins on its own: make one here, or run <code>fleetctl token create</code>.
        </EmptyState>
      )}
      <ul className={classes.list}>
        {tokens?.map((token) => {
          const state = tokenState(token, now);
          return (
            <li key={token.id} className={classes.row} data-token={state}>
              <Text fw={600}>{state}</Text>
              <div>
                <Text>
                  {token.note || "No note"} · {token.role} in {token.segment} on {token.branch}
                  {token.auto_accept ? "" : " · still waits to be accepted"}
                </Text>
                <Text size="sm" className={soft}>
                  {usesWords(token)}
                  {token.devices.length > 0 && `: ${token.devices.join(", ")}`} · made{" "}
                  <RelativeTime at={token.created_at} />
                </Text>
              </div>
              {state === "open"
                ? (
                  <Button size="compact-sm" variant="default" onClick={() => setRevoking(token)}>
                    Revoke
                  </Button>
                )
                : <span />}
            </li>
          );
        })}
      </ul>
      {revoking && (
        <ConfirmWithReason
          title="Revoke this token?"
          action="Revoke the token"
          dangerous
          run={async () => {
            await revokeToken(client, revoking.id);
            await cache.invalidateQueries();
          }}
          close={() => setRevoking(null)}
        >
          <Text size="sm">
            No more devices can enroll with it. Devices that joined with it stay: {usesWords(revoking)}.
          </Text>
        </ConfirmWithReason>
      )}
    </Stack>
  );
}

function TokenForm({ close, done }: { close: () => void; done: (made: MadeToken) => void }) {
  const client = useClient();
  const cache = useQueryClient();
  const { data: choices } = useLive({
    key: ["token choices"],
    tables: ["device_roles", "segments", "branches"],
    read: readChoices,
  });
  const [wish, setWish] = useState<Partial<TokenWish>>({});
  const make = useMutation({
    mutationFn: (whole: TokenWish) => createToken(client, whole),
    onSuccess: async (made) => {
      await cache.invalidateQueries({ queryKey: ["live", "tokens"] });
      done(made);
    },
  });
  if (!choices) return null;
  const whole: TokenWish = {
    role: choices.roles[0] ?? "",
    segment: choices.segments.at(-1) ?? "",
    branch: choices.branches.includes("main") ? "main" : choices.branches[0] ?? "",
    note: "",
    max_uses: 1,
    valid_for_s: 604_800,
    auto_accept: true,
    ...wish,
  };
  const change = (fields: Partial<TokenWish>) => setWish({ ...wish, ...fields });

  function submit(event: FormEvent) {
    event.preventDefault();
    make.mutate(whole);
  }

  return (
    <form onSubmit={submit} aria-label="New token">
      <Stack gap="sm">
        <Group align="flex-end">
          <NativeSelect
            label="Role"
            data={choices.roles}
            value={whole.role}
            onChange={(event) => change({ role: event.currentTarget.value })}
          />
          <NativeSelect
            label="Segment"
            data={choices.segments}
            value={whole.segment}
            onChange={(event) => change({ segment: event.currentTarget.value })}
          />
          <NativeSelect
            label="Branch"
            data={choices.branches}
            value={whole.branch}
            onChange={(event) => change({ branch: event.currentTarget.value })}
          />
          <NumberInput
            label="Devices"
            description="How many may join with it"
            min={1}
            max={100_000}
            allowDecimal={false}
            value={whole.max_uses}
            onChange={(value) => change({ max_uses: Number(value) })}
          />
          <NativeSelect
            label="Valid for"
            data={[...VALIDITIES]}
            value={String(whole.valid_for_s)}
            onChange={(event) => change({ valid_for_s: Number(event.currentTarget.value) })}
          />
        </Group>
        <TextInput
          label="Note"
          placeholder="For example: canteen, second floor"
          maxLength={200}
          value={whole.note}
          onChange={(event) => change({ note: event.currentTarget.value })}
        />
        <Checkbox
          label="Devices join at once, without being accepted"
          checked={whole.auto_accept}
          onChange={(event) => change({ auto_accept: event.currentTarget.checked })}
        />
        {make.error && <ErrorAlert error={make.error} title="No token was made" />}
        <Group justify="flex-end">
          <Button variant="default" onClick={close}>Cancel</Button>
          <Button type="submit" loading={make.isPending}>Make token</Button>
        </Group>
      </Stack>
    </form>
  );
}

function ShownOnce({ made, close }: { made: MadeToken; close: () => void }) {
  const line = enrollLine(useAddress(), made.token);
  return (
    <Stack gap="sm" role="region" aria-label="The new token">
      <Text fw={600}>Run this on the device. The token is shown only now.</Text>
      <div className={classes.line} data-testid="enroll-line">{line}</div>
      <Text size="sm" className={soft}>
        The device also needs <code>git_url</code> and{" "}
        <code>allowed_signers</code>: from a device.json of its own, or in the line of{" "}
        <code>fleetctl token create --repository</code>.
      </Text>
      <Group align="flex-start">
        <QrCode text={line} label="The same line as a QR code" />
        <CopyButton value={line}>
          {({ copied, copy }) => <Button onClick={copy}>{copied ? "Copied" : "Copy the line"}</Button>}
        </CopyButton>
        <Button variant="default" onClick={close}>Done</Button>
      </Group>
    </Stack>
  );
}
