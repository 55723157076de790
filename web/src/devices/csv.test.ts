import { equal } from "../testing/assert.ts";
import { csvOf } from "./csv.ts";

Deno.test("what a spreadsheet would run as a formula stays text, and numbers stay numbers", () => {
  const row = [
    "=1+1",
    "@x",
    "-cam",
    -5,
    "-5",
    "+44 20",
    'say "hi"',
    "a,b",
    "two\nlines",
    "tab\there",
    "\tx",
    "'own",
    "plain",
    null,
  ];
  equal(
    csvOf(["name"], [row]),
    `name\r\n'=1+1,'@x,'-cam,-5,-5,'+44 20,"say ""hi""","a,b","two\nlines","tab\there","'\tx",''own,plain,\r\n`,
  );
});
