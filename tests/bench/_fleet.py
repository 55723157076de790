"""What several benchmarks need of a running stack."""

from __future__ import annotations

from supabase import Client, create_client

from fleetctl.stack.local_stack import LocalStack


def service(stack: LocalStack) -> Client:
    """The operator's hands, with the secret key."""
    return create_client(stack.api_url, stack.secret_key)


def provisioning_token(stack: LocalStack, uses: int = 1) -> str:
    """A token for `uses` beacons in segment stable on branch main."""
    answer = (
        service(stack)
        .rpc(
            "create_provisioning_token",
            {"role": "beacon", "segment": "stable", "branch": "main", "max_uses": uses},
        )
        .execute()
    )
    data = answer.data
    row = data[0] if isinstance(data, list) else data
    return str(row["token"] if isinstance(row, dict) else row)
