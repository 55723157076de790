import { keepPreviousData, useQueries, useQuery } from "@tanstack/react-query";
import { useClient } from "../auth/session.tsx";
import type { Client } from "../data/client.ts";
import { readDeviceList } from "../data/reads.ts";
import { usePollMs } from "../fleet/useFleet.ts";
import { selectorText } from "../format/selector.ts";
import { type DevicePage, parsePage } from "./deviceList.ts";
import type { View } from "./filters.ts";

/** Rows of one request. */
export const PAGE_ROWS = 100;
/** What a row of the list shows comes from these. */
const TABLES = ["devices", "device_status", "releases", "fleet_settings"];

type Asked = Pick<View, "selector" | "sort" | "descending">;

function pageQuery(client: Client, { selector, sort, descending }: Asked, page: number) {
  return {
    queryKey: ["live", "device list", selectorText(selector), sort, descending, page],
    queryFn: async () =>
      parsePage(await readDeviceList(client, selector, sort, descending, page * PAGE_ROWS, PAGE_ROWS)),
    meta: { tables: TABLES },
  };
}

export interface DeviceList {
  /** How many match; undefined until that is known. */
  total: number | undefined;
  row: (index: number) => DevicePage["devices"][number] | undefined;
  error: Error | null;
  /** What is shown still belongs to the filters before. */
  isOld: boolean;
}

/** The list, of which only the first page and those on the screen are read. */
export function useFirstPage(view: Asked) {
  const client = useClient();
  return useQuery({
    ...pageQuery(client, view, 0),
    refetchInterval: usePollMs(),
    placeholderData: keepPreviousData,
  });
}

export function useDeviceList(
  view: Asked,
  first: ReturnType<typeof useFirstPage>,
  indexes: readonly number[],
): DeviceList {
  const client = useClient();
  const refetchInterval = usePollMs();
  const pages = [...new Set(indexes.map((index) => Math.floor(index / PAGE_ROWS)))].filter((page) =>
    page > 0
  );
  const others = useQueries({
    queries: pages.map((page) => ({ ...pageQuery(client, view, page), refetchInterval })),
  });
  const found = new Map<number, DevicePage | undefined>([[0, first.data]]);
  pages.forEach((page, at) => found.set(page, others[at]?.data));
  return {
    total: first.data?.total,
    row: (index) => found.get(Math.floor(index / PAGE_ROWS))?.devices[index % PAGE_ROWS],
    error: first.error ?? others.find(({ error }) => error)?.error ?? null,
    isOld: first.isPlaceholderData,
  };
}
