import { Button, NativeSelect, Text, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { type FormEvent, useEffect, useRef, useState } from "react";
import { Icon } from "../components/Icon.tsx";
import { readNames } from "../data/reads.ts";
import { useLive } from "../fleet/useLive.ts";
import { parseSelector, type Selector, SelectorError, selectorText } from "../format/selector.ts";
import classes from "./FilterBar.module.css";
import { searchedText, valuesOf, withText, withValues } from "./filters.ts";

interface Props {
  selector: Selector;
  /** What is wrong with the selector in the address. */
  problem: SelectorError | null;
  setSelector: (selector: Selector) => void;
}

const FIELDS = [
  { field: "segment", table: "segments", label: "Segment", any: "All segments" },
  { field: "role", table: "device_roles", label: "Role", any: "All roles" },
  { field: "branch", table: "branches", label: "Branch", any: "All branches" },
] as const;
/** After the last key, so that one question is asked for a word and not one for each letter. */
const TYPING_MS = 250;

export function FilterBar({ selector, problem, setSelector }: Props) {
  const narrowed = selectorText(selector) !== "" || problem !== null;
  return (
    <>
      <div role="search" aria-label="Filter devices" className={classes.bar}>
        <Search selector={selector} setSelector={setSelector} />
        {FIELDS.map(({ field, table, label, any }) => (
          <Choice
            key={field}
            {...{ table, label, any }}
            chosen={valuesOf(selector, field)}
            choose={(values) => setSelector(withValues(selector, field, values))}
          />
        ))}
        <ByText selector={selector} problem={problem} setSelector={setSelector} />
        {narrowed && <Button variant="default" onClick={() => setSelector({})}>Clear filters</Button>}
      </div>
      {problem && (
        <Text size="sm" role="alert">
          {problem.message} {problem.hint} The list shows all devices.
        </Text>
      )}
    </>
  );
}

function Search({ selector, setSelector }: Pick<Props, "selector" | "setSelector">) {
  const written = searchedText(selector);
  const [typed, setTyped] = useState(written);
  const sent = useRef(written);
  const search = useDebouncedCallback((text: string) => {
    sent.current = text.trim() === "" ? "" : text;
    setSelector(withText(selector, text));
  }, TYPING_MS);
  useEffect(() => {
    // Changed from elsewhere: by a link, or by clearing the filters.
    if (written !== sent.current) setTyped(written);
    sent.current = written;
  }, [written]);
  return (
    <TextInput
      label="Search"
      type="search"
      placeholder="Name, version, message…"
      leftSection={<Icon name="search" size={16} />}
      value={typed}
      onChange={(event) => {
        setTyped(event.currentTarget.value);
        search(event.currentTarget.value);
      }}
      className={classes.search}
    />
  );
}

interface ChoiceProps {
  table: typeof FIELDS[number]["table"];
  label: string;
  any: string;
  chosen: string[];
  choose: (values: string[]) => void;
}

function Choice({ table, label, any, chosen, choose }: ChoiceProps) {
  const { data } = useLive({
    key: ["names", table],
    tables: [table],
    read: (client) => readNames(client, table),
  });
  // Several come from a link or from the selector's text.
  const several = chosen.length > 1 ? [{ value: chosen.join(","), label: chosen.join(" or ") }] : [];
  return (
    <NativeSelect
      label={label}
      value={chosen.join(",")}
      onChange={(event) => choose(event.currentTarget.value === "" ? [] : [event.currentTarget.value])}
      data={[
        { value: "", label: any },
        ...several,
        ...new Set([...(data ?? []), ...(chosen.length === 1 ? chosen : [])]),
      ]}
      className={classes.choice}
    />
  );
}

/** The whole filter as its short text, for what the choices do not offer: labels, models, outcomes. */
function ByText({ selector, problem, setSelector }: Props) {
  const written = selectorText(selector);
  const [text, setText] = useState(written);
  const [wrong, setWrong] = useState<SelectorError | null>(null);
  useEffect(() => {
    setText(written);
    setWrong(null);
  }, [written]);
  function submit(event: FormEvent) {
    event.preventDefault();
    try {
      setSelector(parseSelector(text));
      setWrong(null);
    } catch (cause) {
      if (!(cause instanceof SelectorError)) throw cause;
      setWrong(cause);
    }
  }
  return (
    <form onSubmit={submit} className={classes.text}>
      <TextInput
        label="Filter as text"
        placeholder="label.site=rome hardware_model=&quot;Pi 3&quot;"
        value={text}
        onChange={(event) => setText(event.currentTarget.value)}
        onBlur={(event) => event.currentTarget.form?.requestSubmit()}
        error={wrong ? `${wrong.message} ${wrong.hint}` : problem !== null && undefined}
      />
    </form>
  );
}
