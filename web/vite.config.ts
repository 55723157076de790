import { MantineProvider } from "@mantine/core";
import react from "@vitejs/plugin-react";
import { createHash } from "node:crypto";
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { defineConfig, type Plugin } from "vite";
import { provider } from "./src/app/theme.ts";

/** The hash of the one <style> element that Mantine makes: the variables of the theme. */
function themeHash(): string {
  const markup = renderToStaticMarkup(createElement(MantineProvider, provider, null));
  const styles = [...markup.matchAll(/<style[^>]*>([^]*?)<\/style>/g)].map((match) => match[1]);
  if (styles.length !== 1) throw new Error(`Mantine makes ${styles.length} <style> elements instead of one`);
  return `'sha256-${createHash("sha256").update(styles[0]).digest("base64")}'`;
}

/**
 * What the built page may load: its own files. It may connect to any address, because the project's is not known yet:
 * `fleetctl dashboard export` narrows it when it writes `config.json`, and so does the embedded stack. Not in `dev`,
 * where Vite puts scripts into the page.
 */
function contentSecurityPolicy(): Plugin {
  const policy = [
    "default-src 'self'",
    "connect-src 'self' http: https: ws: wss:",
    "img-src 'self' data:",
    `style-src 'self' ${themeHash()}`,
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
  ].join("; ");
  return {
    name: "content-security-policy",
    apply: "build",
    transformIndexHtml: () => [
      {
        tag: "meta",
        attrs: { "http-equiv": "Content-Security-Policy", content: policy },
        injectTo: "head-prepend",
      },
    ],
  };
}

const api = Deno.env.get("FLEET_API_URL") ?? "http://127.0.0.1:54321";
const toStack = { target: api, changeOrigin: true, ws: true };

export default defineConfig({
  // Relative addresses, so that dist/ works under any path of any static host.
  base: "./",
  plugins: [react(), contentSecurityPolicy()],
  build: {
    target: "es2022",
    emptyOutDir: true,
    // Which chunk needs which: the size of the first load is a test.
    manifest: true,
    rolldownOptions: {
      output: {
        // What changes rarely is cached apart from what changes with every commit.
        codeSplitting: {
          groups: [
            { name: "react", test: /node_modules\/\.deno\/(react|react-dom|scheduler|wouter)@/, priority: 3 },
            { name: "supabase", test: /node_modules\/\.deno\/@supabase\+/, priority: 2 },
          ],
        },
      },
    },
  },
  server: {
    port: 54173,
    proxy: Object.fromEntries(
      ["/rest/v1", "/auth/v1", "/realtime/v1", "/functions/v1", "/storage/v1", "/config.json"].map((
        path,
      ) => [path, toStack]),
    ),
  },
});
