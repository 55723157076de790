/** What a join must fulfill before it is answered, apart from the policies. */
import type { Connection, Context } from "./context.ts";
import { errorText } from "./database.ts";
import { type JoinParams, parseJoin } from "./join.ts";
import { JoinRefused, notPermitted } from "./refusals.ts";
import { parseReplay, replay, type StoredMessage } from "./replay.ts";

/** The parameters of a join within all limits, which it counts against; raises JoinRefused. */
export function admitJoin(
  { limits, rates, closing }: Context,
  { channelCount }: Connection,
  topic: string,
  payload: unknown,
): JoinParams {
  if (topic === "") throw new JoinRefused("TopicNameRequired: You must provide a topic name");
  if (closing) throw new JoinRefused("RealtimeRestarting: Realtime is restarting, please standby");
  const params = parseJoin(payload);
  if (limits.privateOnly && !params.isPrivate) {
    throw new JoinRefused("PrivateOnly: This project only allows private channels");
  }
  if (rates.joins.exceeded) {
    throw new JoinRefused("ClientJoinRateLimitReached: Too many joins per second", true);
  }
  rates.joins.add();
  if (channelCount > limits.channelsPerConnection) {
    throw new JoinRefused("ChannelRateLimitReached: Too many channels");
  }
  return params;
}

/** The stored messages that a join asks for; raises JoinRefused, or ReplayParamsInvalid. */
export async function replayForJoin(
  { sql, log }: Context,
  topic: string,
  params: JoinParams,
  mayRead: boolean,
): Promise<StoredMessage[]> {
  if (params.replay === undefined || params.replay === null) return [];
  if (!mayRead) throw new JoinRefused(`Unauthorized: ${notPermitted(topic)}`);
  if (!params.isPrivate) {
    throw new JoinRefused("UnableToReplayMessages: Replay is not allowed for public channels");
  }
  const wanted = parseReplay(params.replay);
  if (!wanted) return [];
  return await replay(sql, topic, wanted).catch((error) => {
    log(`replay of ${topic} failed: ${errorText(error)}`);
    throw new JoinRefused("UnableToReplayMessages: Realtime was unable to replay messages");
  });
}
