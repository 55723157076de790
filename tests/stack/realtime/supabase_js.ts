/**
 * What `@supabase/supabase-js` sees, scenario by scenario, printed as one JSON object. test_realtime_supabase_js.py
 * runs it and judges each by itself; nothing is judged here.
 *
 * Its only argument is `Input` as JSON.
 * A line "send <topic> <event> <private>" on standard output asks Python to broadcast from the database.
 */
import { createClient, type RealtimeChannel, type SupabaseClient } from "npm:@supabase/supabase-js@2.119.1";

interface Input {
  url: string;
  /** Where public channels are allowed, too. */
  openUrl: string;
  publishableKey: string;
  secretKey: string;
  operatorToken: string;
  deviceToken: string;
  deviceTopic: string;
  topic: string;
  email: string;
  password: string;
}

interface Broadcast {
  event: string;
  payload: unknown;
  meta?: { id: string; replayed?: boolean };
}

const PATIENCE_MS = 10_000;
const input: Input = JSON.parse(Deno.args[0]);
const clients: SupabaseClient[] = [];

/** As the dashboard is made: the publishable key, and for a signed-in person a way to get the token. */
async function client(token?: string, url = input.url): Promise<SupabaseClient> {
  const made = createClient(
    url,
    input.publishableKey,
    token ? { accessToken: () => Promise.resolve(token) } : {},
  );
  clients.push(made);
  // As Supabase's guide asks before a private channel: the first join would go without the token otherwise.
  if (token) await made.realtime.setAuth();
  return made;
}

const open = () => client(undefined, input.openUrl);

class Mailbox<T> {
  #items: T[] = [];
  #waiting: ((item: T) => void)[] = [];

  put(item: T): void {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(item);
    else this.#items.push(item);
  }

  take(): Promise<T> {
    const item = this.#items.shift();
    if (item !== undefined) return Promise.resolve(item);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("nothing came")), PATIENCE_MS);
      this.#waiting.push((got) => (clearTimeout(timer), resolve(got)));
    });
  }
}

/** Joins; the outcome is the status and, for an error, its message. */
function subscribe(channel: RealtimeChannel): Promise<string> {
  return new Promise((resolve) => {
    channel.subscribe((status, error) => resolve(error ? `${status} ${error.message}` : status));
  });
}

function listen(channel: RealtimeChannel): Mailbox<Broadcast> {
  const box = new Mailbox<Broadcast>();
  channel.on("broadcast", { event: "*" }, (message) => box.put(message as unknown as Broadcast));
  return box;
}

/** Python broadcasts from the database and says so on standard input. */
const answers = Deno.stdin.readable.pipeThrough(new TextDecoderStream()).getReader();
async function sendFromDatabase(topic: string, event: string, isPrivate: boolean): Promise<void> {
  console.log(`send ${topic} ${event} ${isPrivate}`);
  await answers.read();
}

const scenarios: Record<string, () => Promise<unknown>> = {
  async privateBroadcastFromTheDatabase() {
    const channel = (await client(input.operatorToken)).channel("fleet", { config: { private: true } });
    const box = listen(channel);
    const joined = await subscribe(channel);
    await sendFromDatabase("fleet", "devices", true);
    const { event, payload, meta } = await box.take();
    return { joined, event, payload, hasId: typeof meta?.id === "string" };
  },

  async refusedPrivateChannel() {
    const outcomes: Record<string, string> = {};
    for (
      const [who, made] of [["anon", await client()], ["device", await client(input.deviceToken)]] as const
    ) {
      outcomes[who] = await subscribe(made.channel("fleet", { config: { private: true } }));
    }
    return outcomes;
  },

  async deviceOnItsOwnTopic() {
    const channel = (await client(input.deviceToken)).channel(input.deviceTopic, {
      config: { private: true },
    });
    const box = listen(channel);
    const joined = await subscribe(channel);
    await sendFromDatabase(input.deviceTopic, "wake", true);
    return { joined, event: (await box.take()).event };
  },

  async clientBroadcastWithAckAndBytes() {
    const sender = (await open()).channel(input.topic, {
      config: { broadcast: { ack: true, self: true } },
    });
    const other = (await open()).channel(input.topic);
    const [own, others] = [listen(sender), listen(other)];
    await Promise.all([subscribe(sender), subscribe(other)]);
    const sent = await sender.send({ type: "broadcast", event: "ping", payload: { text: "grüß dich 👋" } });
    const bytes = new Uint8Array([0, 1, 255]).buffer;
    const sentBytes = await sender.send({ type: "broadcast", event: "bytes", payload: bytes as never });
    const [mine, first, second] = [await own.take(), await others.take(), await others.take()];
    return {
      sent,
      sentBytes,
      mine: mine.payload,
      first: first.payload,
      second: [...new Uint8Array(second.payload as ArrayBuffer)],
    };
  },

  async httpSend() {
    const channel = (await open()).channel(`${input.topic}:http`);
    const box = listen(channel);
    await subscribe(channel);
    const answer = await channel.httpSend("over http", { n: 1 });
    return { answer, got: (await box.take()).payload };
  },

  async presence() {
    const watcher = (await open()).channel(`${input.topic}:presence`, {
      config: { presence: { key: "watcher" } },
    });
    const seen = new Mailbox<string>();
    watcher.on("presence", { event: "join" }, ({ key }) => seen.put(`join ${key}`));
    watcher.on("presence", { event: "leave" }, ({ key }) => seen.put(`leave ${key}`));
    await subscribe(watcher);
    const member = (await open()).channel(`${input.topic}:presence`, {
      config: { presence: { key: "member" } },
    });
    await subscribe(member);
    const tracked = await member.track({ mood: "fine" });
    const joined = await seen.take();
    const state = watcher.presenceState<{ mood: string }>().member.map(({ mood }) => mood);
    await member.untrack();
    return { tracked, joined, state, left: await seen.take() };
  },

  async replay() {
    await sendFromDatabase("fleet", "halts", true);
    const channel = (await client(input.operatorToken)).channel("fleet", {
      config: { private: true, broadcast: { replay: { since: Date.now() - 60_000, limit: 1 } } },
    });
    const box = listen(channel);
    await subscribe(channel);
    const { event, meta } = await box.take();
    return { event, replayed: meta?.replayed };
  },

  async signingIn() {
    // No timer that renews the session behind the test's back.
    const made = createClient(input.url, input.publishableKey, { auth: { autoRefreshToken: false } });
    const first = await made.auth.signInWithPassword({ email: input.email, password: input.password });
    const second = await made.auth.refreshSession();
    const got = await made.auth.getUser();
    const out = await made.auth.signOut();
    return {
      errors: [first.error, second.error, got.error, out.error],
      email: got.data.user?.email,
      renewed: first.data.session?.refresh_token !== second.data.session?.refresh_token,
      // Left as the server wrote it.
      createdAt: got.data.user?.created_at,
    };
  },

  async leaving() {
    const made = await open();
    const channel = made.channel(`${input.topic}:leaving`);
    await subscribe(channel);
    return { left: await made.removeChannel(channel), channels: made.getChannels().length };
  },
};

const results: Record<string, unknown> = {};
for (const [name, run] of Object.entries(scenarios)) {
  try {
    results[name] = await run();
  } catch (error) {
    results[name] = { failed: String(error) };
  }
}
for (const made of clients) await made.removeAllChannels();
console.log(JSON.stringify(results));
Deno.exit(0);
