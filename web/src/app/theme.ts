import { createTheme, type MantineProviderProps } from "@mantine/core";

const theme = createTheme({
  primaryColor: "blue",
  // Shade 8 carries white text at more than 4.5:1; Mantine's default 6 does not.
  primaryShade: { light: 8, dark: 8 },
  defaultRadius: "md",
  respectReducedMotion: true,
  cursorType: "pointer",
  components: {
    // Mantine's own lock puts a <style> element into the page, which the policy refuses; global.css locks instead.
    Modal: { defaultProps: { lockScroll: false, classNames: { root: "modal" } } },
    Drawer: { defaultProps: { lockScroll: false, classNames: { root: "modal" } } },
  },
});

/**
 * vite.config.ts takes the hash of what this makes into the page's policy, so no other <style> element may come with
 * it: `withGlobalClasses` would add one, for `visibleFrom` and `hiddenFrom`. Grids and responsive style props
 * (`{ base: …, sm: … }`) would add one each; use a CSS module.
 */
export const provider: Omit<MantineProviderProps, "children"> = {
  theme,
  defaultColorScheme: "auto",
  withGlobalClasses: false,
};
