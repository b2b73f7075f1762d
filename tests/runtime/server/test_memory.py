import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
import threading

from pipeline.runtime.server.memory import LARGE_BLOCK, keep_heap_small

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")]
    _fields_ += [(name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost")]

libc.mallinfo2.restype = Mallinfo

def mapped_alone(size):
    before = libc.mallinfo2().hblks
    block = libc.malloc(size)
    alone = libc.mallinfo2().hblks - before
    libc.free(block)
    return alone

if ASKED:
    keep_heap_small()
thread = threading.Thread(target=lambda: libc.free(libc.malloc(1000)))
thread.start()
thread.join()
libc.malloc_stats()
libc.free(libc.malloc(2**24))  # glibc takes this as a sign that such blocks come and go
print([mapped_alone(size) for size in (LARGE_BLOCK // 4, 2**22, 2**23)])
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33 or newer")
@pytest.mark.parametrize(("asked", "alone"), [(True, [0, 1, 1]), (False, [0, 0, 0])])
def test_all_threads_share_a_heap_and_large_blocks_are_in_none_however_many_were_freed(asked, alone):
    program = PROGRAM.replace("ASKED", str(asked))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == str(alone)
    assert ("Arena 1:" in ended.stderr) is not asked
