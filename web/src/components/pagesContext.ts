import { createContext, useContext } from "react";

/** The paths of the pages that this person may open; a link to any other would lead nowhere. */
export const PagesContext = createContext<ReadonlySet<string>>(new Set());

export function useHasPage(): (path: string) => boolean {
  const paths = useContext(PagesContext);
  return (path) => paths.has(path.replace(/[?#].*$/, ""));
}
