"""The agent's side of the control plane: REST, tokens, wakes, clock, facts about this machine."""
