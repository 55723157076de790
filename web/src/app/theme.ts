import { createTheme } from "@mantine/core";

export const theme = createTheme({
  primaryColor: "blue",
  // Shade 8 carries white text at more than 4.5:1; Mantine's default 6 does not.
  primaryShade: { light: 8, dark: 8 },
  defaultRadius: "md",
  respectReducedMotion: true,
  cursorType: "pointer",
});
