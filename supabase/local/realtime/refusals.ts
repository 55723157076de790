/** How a channel says no: the words that hosted Realtime uses for each fault, which clients look for. */
import { AuthorizeError, type AuthorizeFault } from "./authorize.ts";
import { TokenError, type TokenFault } from "./jwt.ts";
import { ReplayParamsInvalid } from "./replay.ts";

/** A join that is refused; `reason` is what the client is told. */
export class JoinRefused extends Error {
  constructor(readonly reason: string, readonly dropConnection = false) {
    super(reason);
  }
}

/** A joined channel that must end; the client gets `message` in a `system` error and then `phx_close`. */
export class Shutdown extends Error {}

/** An `invalid` token has no code of its own. */
const TOKEN_CODES: Partial<Record<TokenFault, string>> = {
  expired: "InvalidJWTToken",
  missing_claims: "InvalidJWTToken",
  malformed: "MalformedJWT",
  signature: "JwtSignatureError",
  signer: "JwtSignerError",
};

/** A `policy` fault counts as a refusal by the policy. */
const POLICY_CODES: Record<Exclude<AuthorizeFault, "policy">, string> = {
  canceled: "QueryCanceled",
  partition: "MissingPartition",
  pool: "IncreaseConnectionPool",
  database: "UnableToConnectToProject",
};

export function notPermitted(topic: string): string {
  return `You do not have permissions to read from this Channel topic: ${topic}`;
}

/** Any failure of a join as the refusal that the client gets. */
export function joinRefused(error: unknown, topic: string): JoinRefused {
  if (error instanceof JoinRefused) return error;
  if (error instanceof ReplayParamsInvalid) {
    return new JoinRefused("UnableToReplayMessages: Replay params are not valid");
  }
  if (error instanceof TokenError) {
    const code = TOKEN_CODES[error.fault];
    if (code) return new JoinRefused(`${code}: ${error.message}`);
  }
  if (error instanceof AuthorizeError) {
    if (error.fault === "policy") return new JoinRefused(`Unauthorized: ${notPermitted(topic)}`);
    return new JoinRefused(`${POLICY_CODES[error.fault]}: ${error.message}`);
  }
  return new JoinRefused("Unknown Error on Channel");
}

/** The message of the shutdown that follows when a new token is not good enough. */
export function refreshRefused(error: unknown, topic: string): string {
  if (error instanceof TokenError) return error.message;
  if (error instanceof AuthorizeError) {
    if (error.fault === "policy") return notPermitted(topic);
    if (error.fault === "canceled") return "Query was cancelled, please try again";
    return "Realtime was unable to connect to the project database";
  }
  throw error;
}
