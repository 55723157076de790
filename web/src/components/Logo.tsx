/** The mark; the name stands next to it. */
export function Logo({ size = 26 }: { size?: number }) {
  return (
    <svg aria-hidden="true" width={size} height={size} viewBox="0 0 32 32" style={{ flex: "none" }}>
      <rect width="32" height="32" rx="7" fill="#1864ab" />
      <path
        d="M7 22V10l9 8 9-8v12"
        fill="none"
        stroke="#fff"
        strokeWidth="2.6"
        strokeLinecap="round"
        strokeLinejoin="round"
      />
      <circle cx="16" cy="24.5" r="2" fill="#74c0fc" />
    </svg>
  );
}
