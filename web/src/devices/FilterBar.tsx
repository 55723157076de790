import { Button, Group, NativeSelect, TextInput } from "@mantine/core";
import { useMemo } from "react";
import { Icon } from "../components/Icon.tsx";
import type { DeviceView } from "./deviceView.ts";
import { type Filters, NO_FILTERS, writeFilters } from "./filters.ts";

interface Props {
  views: readonly DeviceView[];
  filters: Filters;
  setFilters: (filters: Filters) => void;
}

const FIELDS = [
  { field: "segment", label: "Segment", any: "All segments" },
  { field: "role", label: "Role", any: "All roles" },
  { field: "branch", label: "Branch", any: "All branches" },
] as const;

export function FilterBar({ views, filters, setFilters }: Props) {
  const choices = useMemo(() => {
    const values = (field: "segment" | "role" | "branch") =>
      [...new Set(views.map((view) => view[field]))].sort();
    return { segment: values("segment"), role: values("role"), branch: values("branch") };
  }, [views]);
  const narrowed = writeFilters(filters).size > 0;
  return (
    <Group role="search" aria-label="Filter devices" align="flex-end" gap="sm">
      <TextInput
        label="Search"
        type="search"
        placeholder="Name, version, reason…"
        leftSection={<Icon name="search" size={16} />}
        value={filters.text}
        onChange={(event) => setFilters({ ...filters, text: event.currentTarget.value })}
        style={{ flex: "4 1 16rem" }}
      />
      {FIELDS.map(({ field, label, any }) => (
        <NativeSelect
          key={field}
          label={label}
          value={filters[field]}
          onChange={(event) => setFilters({ ...filters, [field]: event.currentTarget.value })}
          data={[
            { value: "", label: any },
            ...new Set([...choices[field], ...(filters[field] ? [filters[field]] : [])]),
          ]}
          style={{ flex: "1 1 8rem" }}
        />
      ))}
      {narrowed && <Button variant="default" onClick={() => setFilters(NO_FILTERS)}>Clear filters</Button>}
    </Group>
  );
}
