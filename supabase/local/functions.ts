/** Edge functions: the very files that are deployed, loaded from `edge_functions/<name>/index.ts`. */

type Handler = (request: Request) => Promise<Response>;

/** As on hosted, so that a runaway function fails here first. */
const WALL_CLOCK_MS = 150_000;

export interface Functions {
  names: string[];
  /** Functions that could not be loaded, with the reason. */
  failed: Record<string, string>;
  handle(request: Request, path: string): Promise<Response>;
}

/** Load every function. One that cannot be loaded answers 503 and does not keep the others from working. */
export async function loadFunctions(folder: string, log: (line: string) => void): Promise<Functions> {
  const handlers = new Map<string, Handler>();
  const failed: Record<string, string> = {};
  for (const name of await functionNames(folder)) {
    try {
      const module = await import(new URL(`file://${folder}/${name}/index.ts`).href);
      const handler = module.handler ?? module.default?.fetch;
      if (typeof handler !== "function") throw new Error("it does not export a `handler`");
      handlers.set(name, handler);
    } catch (error) {
      failed[name] = error instanceof Error ? error.message : String(error);
      log(`function ${name} could not be loaded: ${failed[name]}`);
    }
  }
  return {
    names: [...handlers.keys()],
    failed,
    handle(request, path) {
      const name = path.slice("/functions/v1/".length).split("/", 1)[0];
      if (request.method === "OPTIONS") {
        return Promise.resolve(new Response(null, { status: 204, headers: CORS }));
      }
      const handler = handlers.get(name);
      if (handler) return run(name, handler, request, log);
      if (Object.hasOwn(failed, name)) {
        return Promise.resolve(
          answer(
            503,
            "function_unavailable",
            `Function ${name} could not be loaded; the server log has the reason.`,
          ),
        );
      }
      return Promise.resolve(
        answer(404, "function_not_found", `Function ${JSON.stringify(name)} does not exist.`),
      );
    },
  };
}

async function functionNames(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(folder)) {
      // Folders that begin with `_` are shared code, as for the Supabase CLI.
      if (
        entry.isDirectory && /^[A-Za-z][A-Za-z0-9_-]*$/.test(entry.name) &&
        await isFile(`${folder}/${entry.name}/index.ts`)
      ) {
        names.push(entry.name);
      }
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names.sort();
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch {
    return false;
  }
}

async function run(
  name: string,
  handler: Handler,
  request: Request,
  log: (line: string) => void,
): Promise<Response> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<Response>((resolve) => {
    timer = setTimeout(() => {
      log(`function ${name} did not respond within ${WALL_CLOCK_MS / 1000} s`);
      resolve(answer(504, "function_timeout", `Function ${name} timed out.`));
    }, WALL_CLOCK_MS);
  });
  try {
    const response = await Promise.race([handler(request), late]);
    if (!(response instanceof Response)) throw new Error("it did not return a Response");
    return withCors(response);
  } catch (error) {
    log(`function ${name} threw: ${error instanceof Error ? error.stack : error}`);
    return answer(500, "function_crashed", `Function ${name} failed; the server log has the reason.`);
  } finally {
    clearTimeout(timer);
  }
}

const CORS = {
  "access-control-allow-origin": "*",
  "access-control-allow-headers": "authorization, x-client-info, apikey, content-type",
  "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
};

function withCors(response: Response): Response {
  if (response.headers.has("access-control-allow-origin")) return response;
  const headers = new Headers(response.headers);
  headers.set("access-control-allow-origin", "*");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

export function answer(status: number, kind: string, message: string): Response {
  return Response.json({ kind, message }, { status, headers: CORS });
}
