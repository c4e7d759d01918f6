# SPDX-License-Identifier: Apache-2.0
"""The official openai SDK, unchanged, over a sealed and attested connection.

Start an appliance first (``adyton-host up --simulate``), then: ``python docs/examples/openai_sdk.py --simulated``
"""

import argparse
import json
from pathlib import Path

from adyton import Client, Simulation


def main() -> None:
    """Verify the appliance, stream one answer, and keep its receipt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--url", default="http://127.0.0.1:8470")
    trust = parser.add_mutually_exclusive_group(required=True)
    trust.add_argument("--policy", help="what to accept of a real appliance")
    trust.add_argument(
        "--simulated", action="store_true", help="accept the local simulation, which protects nothing"
    )
    parser.add_argument("--simulation-dir", type=Path)
    parser.add_argument("--save-receipt", type=Path)
    parser.add_argument(
        "question",
        nargs="?",
        default="Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?",
    )
    args = parser.parse_args()

    if args.policy:
        client = Client(args.url, policy=args.policy)
    else:
        client = Client(args.url, simulation=Simulation.from_dir(args.simulation_dir))

    with client:
        verdict = client.verify()
        print(
            f"attested ({verdict.tee_type}): {sum(c.verdict == 'pass' for c in verdict.checks)} checks passed"
        )

        sdk = client.openai()
        stream = sdk.chat.completions.create(
            model=sdk.models.list().data[0].id,
            messages=[{"role": "user", "content": args.question}],
            stream=True,
        )
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()

        # The stream ended without an error, so the answer is complete and its receipt has been checked.
        record = client.last_receipt
        if record is not None:
            print(f"receipt: valid ({record.receipt.receipt_id})")
            if args.save_receipt:
                args.save_receipt.write_text(json.dumps(record.to_json(), indent=2))


if __name__ == "__main__":
    main()
