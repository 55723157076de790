import { Channel } from "./channel.ts";
import type { Connection, Context } from "./context.ts";
import { type Frame, FrameError, type Framing, type Incoming, type Outgoing } from "./frames.ts";

/** Close codes of the WebSocket protocol. */
const GOING_AWAY = 1001;
const UNREADABLE = 1007;
const TOO_BIG = 1009;
const TRY_AGAIN_LATER = 1013;

/** One client's WebSocket and the channels it has joined. */
export class Socket implements Connection {
  #channels = new Map<string, Channel>();
  #idleTimer: ReturnType<typeof setTimeout> | undefined;
  #lastHeardAt = 0;
  /** Set by a close that came before the handshake was through. */
  #ending: [code: number, reason: string] | null = null;

  constructor(
    private readonly context: Context,
    private readonly ws: WebSocket,
    readonly framing: Framing,
    readonly token: string,
    readonly headers: Record<string, string>,
  ) {
    ws.binaryType = "arraybuffer";
    context.connections.add(this);
    ws.onmessage = (event) => this.#heard(event.data);
    ws.onclose = () => this.#closed();
    ws.onerror = () => {}; // A close follows, and it is all that matters.
    ws.onopen = () => this.#opened();
  }

  get channelCount(): number {
    return this.#channels.size;
  }

  push(message: Outgoing): void {
    this.send(this.framing.encode(message));
  }

  send(frame: Frame): void {
    if (this.ws.readyState !== WebSocket.OPEN) return;
    if (this.ws.bufferedAmount > this.context.limits.bufferedBytes) {
      this.context.log("closed a connection: the client reads too slowly");
      return this.#end(TRY_AGAIN_LATER, "Too slow");
    }
    this.ws.send(frame);
  }

  forget(channel: { readonly wireTopic: string }): void {
    // A later join of the same topic may have replaced it.
    if (this.#channels.get(channel.wireTopic) === channel) this.#channels.delete(channel.wireTopic);
  }

  drop(reason: string): void {
    this.#end(1000, reason);
  }

  goAway(): void {
    this.#end(GOING_AWAY, "Realtime is restarting");
  }

  #opened(): void {
    if (this.#ending) return this.ws.close(...this.#ending);
    this.#lastHeardAt = performance.now();
    this.#watchIdle();
  }

  #heard(data: unknown): void {
    this.#lastHeardAt = performance.now();
    if (typeof data !== "string" && !(data instanceof ArrayBuffer)) return;
    // UTF-16 length: cheap, and never more than the bytes that were sent.
    const size = typeof data === "string" ? data.length : data.byteLength;
    if (size > this.context.limits.frameBytes) return this.#end(TOO_BIG, "Frame too big");
    let message: Incoming;
    try {
      message = this.framing.decode(data);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      return this.#end(UNREADABLE, error.message);
    }
    this.#dispatch(message);
  }

  #dispatch(message: Incoming): void {
    const { topic, event, ref, joinRef } = message;
    if (topic === "phoenix" && event === "heartbeat") return this.#answer(message, "ok", {});
    if (event === "phx_join" && topic.startsWith("realtime:")) return this.#join(message);
    const channel = this.#channels.get(topic);
    if (!channel) {
      return event === "phx_leave"
        ? this.#answer(message, "ok", {})
        : this.#answer(message, "error", { reason: "unmatched topic" });
    }
    // As hosted: a join_ref of an earlier join, or none, counts only for a leave. That one is not answered, because
    // the channel that it means has had its phx_close.
    if (event !== "phx_leave") return channel.handle(message);
    if (channel.joinRef === null || channel.joinRef === joinRef) channel.leave(ref);
  }

  #join(message: Incoming): void {
    // v1 clients may leave join_ref out; null then stands for "the only join there is".
    const channel = new Channel(this.context, this, message.topic.slice("realtime:".length), message.joinRef);
    this.#channels.get(message.topic)?.replace();
    this.#channels.set(message.topic, channel);
    channel.join(message);
  }

  #answer(
    { joinRef, ref, topic }: Incoming,
    status: "ok" | "error",
    response: Record<string, unknown>,
  ): void {
    this.push({ joinRef, ref, topic, event: "phx_reply", payload: { status, response } });
  }

  /** One timer a socket, which looks back when it fires instead of being reset by every message. */
  #watchIdle(): void {
    const { idleMs } = this.context.limits;
    const left = idleMs - (performance.now() - this.#lastHeardAt);
    if (left <= 0) return this.#end(1000, "");
    this.#idleTimer = setTimeout(() => this.#watchIdle(), left);
  }

  #end(code: number, reason: string): void {
    // Closing a socket that is still connecting has no effect, and the client would stay connected to nothing.
    if (this.ws.readyState === WebSocket.CONNECTING) this.#ending = [code, reason];
    else if (this.ws.readyState === WebSocket.OPEN) this.ws.close(code, reason);
    this.#closed();
  }

  #closed(): void {
    clearTimeout(this.#idleTimer);
    this.context.connections.delete(this);
    for (const channel of [...this.#channels.values()]) channel.abandon();
  }
}
