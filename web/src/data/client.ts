/** The connection to the control plane, typed by the schema. */
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import type { Database } from "./generated/database.types.ts";
import { learnServerTime } from "./serverClock.ts";

export type Client = SupabaseClient<Database>;

/** Where the control plane is. */
export interface Address {
  /** Absolute address of the Supabase project or stack. */
  supabaseUrl: string;
  publishableKey: string;
}

export function connect({ supabaseUrl, publishableKey }: Address): Client {
  return createClient<Database>(supabaseUrl, publishableKey, {
    auth: {
      // Routes live behind the address's #, where Auth would look for its answers.
      detectSessionInUrl: false,
      storageKey: "metrica-fleet-session",
    },
    // The query cache tries again, and the page says meanwhile that it does: a silent retry here would hide it.
    db: { retry: false },
    global: {
      fetch: async (input, init) => {
        const answer = await fetch(input, init);
        // Another origin hides this header; then this machine's clock is trusted.
        learnServerTime(answer.headers.get("date"));
        return answer;
      },
    },
  });
}
