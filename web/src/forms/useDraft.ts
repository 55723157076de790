import { useCallback, useState } from "react";
import { useOperator } from "../auth/session.tsx";
import { type Draft, draftName, readDraft, writeDraft } from "./drafts.ts";

export interface DraftHandle<Values> {
  /** Null while nothing is being edited: a form is open if there is a draft. */
  draft: Draft<Values> | null;
  /** Begin with these values. */
  begin: (values: Values) => void;
  change: (fields: Partial<Values>) => void;
  /** After a conflict: these are the values to compare with from now on. */
  rebase: (before: Partial<Values>) => void;
  discard: () => void;
}

/** The draft of one form of this person; `name` tells it from all others, as in `devices:<id>`. */
export function useDraft<Values extends object>(name: string): DraftHandle<Values> {
  const key = draftName(useOperator().userId, name);
  const [draft, setDraft] = useState(() => readDraft<Values>(sessionStorage, key));
  const put = useCallback((next: (was: Draft<Values> | null) => Draft<Values> | null) => {
    setDraft((was) => {
      const draft = next(was);
      writeDraft(sessionStorage, key, draft);
      return draft;
    });
  }, [key]);
  return {
    draft,
    begin: useCallback((values) => put(() => ({ before: values, mine: values })), [put]),
    change: useCallback(
      (fields) => put((was) => was && { ...was, mine: { ...was.mine, ...fields } }),
      [put],
    ),
    rebase: useCallback(
      (before) => put((was) => was && { ...was, before: { ...was.before, ...before } }),
      [put],
    ),
    discard: useCallback(() => put(() => null), [put]),
  };
}
