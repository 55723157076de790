/**
 * Every page of the dashboard, once: the navigation, the finder and the browser tests read this list.
 *
 * A page without a parameter in its path is in the navigation, in this order. Each is a chunk of its own.
 */
import { type ComponentType, lazy, type LazyExoticComponent } from "react";
import type { Rank } from "../data/rows.ts";

export interface PageRoute {
  path: string;
  /** As the navigation calls it. */
  title: string;
  /** Below this rank it is neither offered nor shown. */
  minimum: Rank;
  /** Gets what the path has in place of `:id`. */
  page: LazyExoticComponent<ComponentType<{ id: string }>>;
}

export const ROUTES: readonly PageRoute[] = [
  {
    path: "/",
    title: "Overview",
    minimum: "viewer",
    page: lazy(() => import("../overview/OverviewPage.tsx")),
  },
  {
    path: "/devices",
    title: "Devices",
    minimum: "viewer",
    page: lazy(() => import("../devices/DevicesPage.tsx")),
  },
  {
    path: "/devices/:id",
    title: "Device",
    minimum: "viewer",
    page: lazy(() => import("../device/DevicePage.tsx")),
  },
  {
    path: "/provisioning",
    title: "Provisioning",
    minimum: "viewer",
    page: lazy(() => import("../provisioning/ProvisioningPage.tsx")),
  },
  {
    path: "/alerts",
    title: "Alerts",
    minimum: "viewer",
    page: lazy(() => import("../alerts/AlertsPage.tsx")),
  },
  {
    path: "/audit",
    title: "Audit",
    minimum: "viewer",
    page: lazy(() => import("../audit/AuditPage.tsx")),
  },
  {
    path: "/settings",
    title: "Settings",
    minimum: "viewer",
    page: lazy(() => import("../settings/SettingsPage.tsx")),
  },
];

/** Whether a page is in the navigation. */
export function isInNavigation({ path }: Pick<PageRoute, "path">): boolean {
  return !path.includes(":");
}
