/** What one channel may do: its token, the claims in it, and the answers of the policies. */
import type { Caller } from "./authorize.ts";
import type { Context } from "./context.ts";
import { errorText } from "./database.ts";
import type { Claims } from "./jwt.ts";
import { JoinRefused, notPermitted, refreshRefused, Shutdown } from "./refusals.ts";

/** Null: not checked yet. A public channel has no policies, so everything is true. */
interface Policies {
  readBroadcast: boolean;
  readPresence: boolean | null;
  writeBroadcast: boolean | null;
  writePresence: boolean | null;
}

const PUBLIC: Policies = {
  readBroadcast: true,
  readPresence: true,
  writeBroadcast: true,
  writePresence: true,
};

export class ChannelAccess {
  #token = "";
  #claims: Claims | null = null;
  #isPrivate = false;
  #policies: Policies = PUBLIC;
  #confirmTimer: ReturnType<typeof setTimeout> | undefined;
  #ended = false;

  /** `confirmDue` is called when the token must be confirmed again. */
  constructor(
    private readonly context: Context,
    private readonly topic: string,
    private readonly headers: Record<string, string>,
    private readonly confirmDue: () => void,
  ) {}

  /** Checks the token and, on a private channel, the policies for reading; raises a refusal of the join. */
  async enter(token: string, isPrivate: boolean, presence: boolean): Promise<void> {
    this.#token = token;
    this.#isPrivate = isPrivate;
    await this.confirm();
    if (isPrivate) this.#policies = await this.#readPolicies(presence);
    if (!mayRead(this.#policies)) throw new JoinRefused(`Unauthorized: ${notPermitted(this.topic)}`);
  }

  get mayReadBroadcast(): boolean {
    return this.#policies.readBroadcast;
  }

  get mayReadPresence(): boolean {
    return this.#policies.readPresence === true;
  }

  /** Checks the token and sets the timer for the next check, at its expiry at the latest; raises TokenError. */
  async confirm(): Promise<void> {
    clearTimeout(this.#confirmTimer);
    this.#claims = await this.context.tokens.verify(this.#token);
    if (this.#ended) return;
    const leftMs = (this.#claims.exp - Math.floor(Date.now() / 1_000)) * 1_000;
    this.#confirmTimer = setTimeout(
      this.confirmDue,
      Math.min(this.context.limits.confirmTokenMs, Math.max(leftMs, 0)),
    );
  }

  /** Takes a new token and checks the policies again; raises Shutdown if the channel may not be read any more. */
  async refresh(token: string): Promise<void> {
    if (token === this.#token) return;
    const before = this.#policies;
    this.#token = token;
    try {
      await this.confirm();
      if (!this.#isPrivate) return;
      this.#policies = await this.#readPolicies(before.readPresence !== null);
    } catch (error) {
      throw new Shutdown(refreshRefused(error, this.topic));
    }
    if (!mayRead(this.#policies)) throw new Shutdown(notPermitted(this.topic));
    if (
      before.readBroadcast && !this.#policies.readBroadcast ||
      before.readPresence && !this.#policies.readPresence
    ) {
      throw new Shutdown(`You no longer have permission to read from this Channel topic: ${this.topic}`);
    }
  }

  /** The policies for writing are checked at the first send. */
  async mayBroadcast(): Promise<boolean> {
    if (this.#policies.writeBroadcast === null) {
      try {
        await this.#askWrite();
      } catch (error) {
        this.context.log(`broadcast to ${this.topic} not sent: ${errorText(error)}`);
        return false;
      }
    }
    return this.#policies.writeBroadcast === true;
  }

  /** The presence policies are checked at the first track, the one for reading too if the join left it out. */
  async mayTrack(): Promise<boolean> {
    if (this.#policies.writePresence === null) {
      try {
        if (this.#policies.readPresence === null) {
          const { presence } = await this.context.authorizer.read(this.#caller, true);
          this.#policies = { ...this.#policies, readPresence: presence };
        }
        await this.#askWrite();
      } catch (error) {
        this.context.log(`track on ${this.topic} refused: ${errorText(error)}`);
        return false;
      }
    }
    return this.#policies.writePresence === true;
  }

  /** The channel has ended: the token is not checked any more. */
  end(): void {
    this.#ended = true;
    clearTimeout(this.#confirmTimer);
  }

  get #caller(): Caller {
    return { topic: this.topic, claims: this.#claims!, headers: this.headers };
  }

  async #readPolicies(presence: boolean): Promise<Policies> {
    const read = await this.context.authorizer.read(this.#caller, presence);
    return {
      readBroadcast: read.broadcast,
      readPresence: read.presence,
      writeBroadcast: null,
      writePresence: null,
    };
  }

  async #askWrite(): Promise<void> {
    const write = await this.context.authorizer.write(this.#caller);
    this.#policies = { ...this.#policies, writeBroadcast: write.broadcast, writePresence: write.presence };
  }
}

function mayRead(policies: Policies): boolean {
  return policies.readBroadcast || policies.readPresence === true;
}
