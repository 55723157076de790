import { Center, Loader } from "@mantine/core";

export function Waiting() {
  return (
    <Center mih="60dvh">
      <Loader aria-label="Loading" />
    </Center>
  );
}
