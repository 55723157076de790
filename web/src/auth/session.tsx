/** Who is signed in, and whether that user is an operator of this fleet. */
import type { Session } from "@supabase/supabase-js";
import { useQuery } from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useEffect, useState } from "react";
import type { Address, Client } from "../data/client.ts";
import { readOperator } from "../data/reads.ts";
import type { Rank } from "../data/rows.ts";

export interface Operator {
  userId: string;
  email: string;
  rank: Rank;
}

const ClientContext = createContext<Client | null>(null);
const AddressContext = createContext<Address | null>(null);
const OperatorContext = createContext<Operator | null>(null);

export function ClientProvider(
  { client, address, children }: { client: Client; address: Address; children: ReactNode },
) {
  return (
    <AddressContext.Provider value={address}>
      <ClientContext.Provider value={client}>{children}</ClientContext.Provider>
    </AddressContext.Provider>
  );
}

export const OperatorProvider = OperatorContext.Provider;

export function useClient(): Client {
  const client = useContext(ClientContext);
  if (!client) throw new Error("useClient is only for components inside ClientProvider");
  return client;
}

/** Where the control plane is, for what people copy from the page. */
export function useAddress(): Address {
  const address = useContext(AddressContext);
  if (!address) throw new Error("useAddress is only for components inside ClientProvider");
  return address;
}

export function useOperator(): Operator {
  const operator = useContext(OperatorContext);
  if (!operator) throw new Error("useOperator is only for components behind the sign-in");
  return operator;
}

export type Access =
  | { state: "loading" }
  | { state: "signed out" }
  | { state: "not an operator"; email: string; retry: () => void }
  | { state: "failed"; error: Error; retry: () => void }
  | { state: "operator"; operator: Operator };

/** Follows Auth's session, and looks the user up in `operators`. */
export function useAccess(): Access {
  const client = useClient();
  const [session, setSession] = useState<Session | null | undefined>(undefined);
  useEffect(() => {
    const { data } = client.auth.onAuthStateChange((_event, next) => setSession(next));
    return () => data.subscription.unsubscribe();
  }, [client]);
  const userId = session?.user.id;
  const row = useQuery({
    queryKey: ["operator", userId],
    queryFn: () => readOperator(client, userId ?? ""),
    enabled: userId !== undefined,
    // A changed rank is announced; this is for a page without the live channel. The database enforces it at once.
    meta: { tables: ["operators"] },
    refetchInterval: 5 * 60_000,
  });

  if (session === undefined) return { state: "loading" };
  if (session === null) return { state: "signed out" };
  const email = session.user.email ?? "this user";
  const retry = () => void row.refetch();
  if (row.data === undefined) {
    return row.error ? { state: "failed", error: row.error, retry } : { state: "loading" };
  }
  if (row.data === null) return { state: "not an operator", email, retry };
  const operator = { userId: row.data.user_id, email: row.data.email ?? email, rank: row.data.rank };
  return { state: "operator", operator };
}
