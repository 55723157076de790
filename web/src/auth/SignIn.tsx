import { Button, PasswordInput, TextInput } from "@mantine/core";
import { type FormEvent, useState } from "react";
import { CenteredCard } from "../components/CenteredCard.tsx";
import { ErrorAlert } from "../components/ErrorAlert.tsx";
import { toAppError } from "../data/appError.ts";
import { useClient } from "./session.tsx";

/** Email address and password, through Supabase Auth. */
export function SignIn() {
  const client = useClient();
  const [error, setError] = useState<Error | null>(null);
  const [busy, setBusy] = useState(false);

  async function signIn(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setBusy(true);
    const answer = await client.auth.signInWithPassword({
      email: String(form.get("email")).trim(),
      password: String(form.get("password")),
    }).catch((cause: unknown) => ({ error: toAppError(cause) }));
    setBusy(false);
    setError(answer.error ? toAppError(answer.error) : null);
  }

  return (
    <CenteredCard title="Metrica Fleet">
      <form onSubmit={(event) => void signIn(event)} style={{ display: "grid", gap: 16 }}>
        <TextInput
          name="email"
          type="email"
          label="Email address"
          autoComplete="username"
          required
          autoFocus
        />
        <PasswordInput name="password" label="Password" autoComplete="current-password" required />
        {error && <ErrorAlert error={error} title="Sign-in failed" />}
        <Button type="submit" loading={busy}>Sign in</Button>
      </form>
    </CenteredCard>
  );
}
