import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

/**
 * What the built page may load: its own files, and any Supabase address over http(s) and websockets, because
 * the address is only known at run time. Not in `dev`, where Vite puts scripts into the page.
 */
function contentSecurityPolicy(): Plugin {
  const policy = [
    "default-src 'self'",
    "connect-src 'self' http: https: ws: wss:",
    "img-src 'self' data:",
    // Mantine sets style attributes and one <style> element for its theme.
    "style-src 'self' 'unsafe-inline'",
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
