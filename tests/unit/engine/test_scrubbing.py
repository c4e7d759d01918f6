# SPDX-License-Identifier: Apache-2.0
"""Scrubbing leaves no trace of a prompt's keys and values in the process's memory."""

import subprocess
import sys

from tiny_gguf import TinyModel

import memory

NEEDLE_BYTES = 48

# Runs in a process of its own, so that the searcher's copy of the needle is not found. The cache's state is copied
# out once to learn what to look for, shown in hexadecimal, and wiped before the first search.
SCRIPT = f"""
import ctypes, sys
import llama_cpp as lib
from adyton_enclave.engine.llama import LlamaContext, LlamaModel
from adyton_enclave.engine.settings import EngineConfig

model = LlamaModel(sys.argv[1], sys.argv[2])
context = LlamaContext(model, EngineConfig(threads=1, n_ctx_total=256, max_sequences=2))
tokens = (lib.llama_token * 40)(*(10 + 3 * i for i in range(40)))
assert lib.llama_decode(context.handle, lib.llama_batch_get_one(tokens, 40)) == 0
size = lib.llama_state_get_size(context.handle)
state = (ctypes.c_uint8 * size)()
written = lib.llama_state_get_data(context.handle, state, size)
middle = written * 3 // 5
print(memoryview(state)[middle : middle + {NEEDLE_BYTES}].hex(), flush=True)
ctypes.memset(state, 0, size)
sys.stdin.readline()
context.scrub()
print("scrubbed", flush=True)
sys.stdin.readline()
"""


def test_scrubbing_leaves_nothing_of_the_cache(tiny: TinyModel) -> None:
    """Bytes of cached keys and values are in memory before the scrub, and nowhere after it."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tiny.path), tiny.sha256]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        needle = bytes.fromhex(child.stdout.readline())
        assert len(set(needle)) > NEEDLE_BYTES // 3
        assert memory.occurrences(child.pid, [needle])[needle] > 0
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "scrubbed\n"
        assert memory.occurrences(child.pid, [needle])[needle] == 0
        child.stdin.write("\n")
