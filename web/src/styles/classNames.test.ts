import { equal } from "../testing/assert.ts";
import * as names from "./classNames.ts";

Deno.test("the list of classes is that of the style sheet", async () => {
  const css = await Deno.readTextFile(new URL("classNames.css", import.meta.url));
  equal([...css.matchAll(/^\.([a-z-]+)/gm)].map((match) => match[1]).sort(), Object.values(names).sort());
});
